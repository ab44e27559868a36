// What can be changed while a chat runs: /set, and the options of the same names.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/text/prompt_template.h"
#include "model/text/sampler.h"

namespace rwkv::apps {

struct ChatSettings {
  SamplerOptions sampling;
  Think think = Think::fast;
  int64_t max_tokens = 4096;
  bool timing = false;  ///< tokens per second after each reply
};

/// One line for each: its name, its value, what it is.
std::string list_settings(const ChatSettings& settings);

bool is_setting(std::string_view name);
std::vector<std::string_view> setting_names();

/// Throws Error for an unknown name and for a value out of range; then nothing changes.
void change_setting(ChatSettings& settings, std::string_view name, std::string_view value);

/// The settings for one message: `-temp=1.2` and `-top_p=0.5` are cut out of it, as in v2/chat.py, which
/// keeps the temperature within 0.2 to 5 and top_p at 0 or more. Throws Error for a value that is no number.
std::pair<std::string, ChatSettings> settings_in_message(const std::string& message,
                                                         const ChatSettings& settings);

}  // namespace rwkv::apps
