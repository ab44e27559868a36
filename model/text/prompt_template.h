// The forms of prompt that RWKV models are trained for, as data in one table.
//
// Sources: API_DEMO_CHAT.py, API_DEMO_WORLD.py and v2/chat.py of ChatRWKV; RWKV7-G1x-templates.txt of RWKV-LM
// (system texts, thinking); the model cards of Raven, World and G1 (names, samplers' settings; the beginning
// of `raven` is in our words); the fill-in-the-middle form is that of G1c and newer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/text/sampler.h"

namespace rwkv {

/// In `message`, {user} and {bot} stand for the names and {text} for the message; or {prefix} and {suffix}
/// for what stands before and after fill_mark in it.
struct PromptTemplate {
  std::string name, description;
  std::string user, bot;           ///< the names of the two; `bot` is empty where a text just goes on
  std::string message;             ///< a message, up to where the reply begins
  std::string system;              ///< in front of everything when there is a {text} for it; "": takes none
  std::string start;               ///< read before the first message, with {user} and {bot}
  bool end_of_text_first = false;  ///< token 0 in front of everything
  bool dialogue = true;            ///< each message follows the reply before it; otherwise it begins anew
  bool clean = true;               ///< messages are cleaned (clean_message); otherwise read as they are
  bool thinks = false;             ///< trained for `<think>` blocks in front of its answers
  std::vector<std::string> stop_texts = {"\n\n"};
  SamplerOptions sampling;
};

/// What ends a reply where another message follows.
constexpr std::string_view turn_end = "\n\n";
/// Where to fill in, in a message of the template `fim`.
constexpr std::string_view fill_mark = "<fill>";
constexpr int32_t end_of_text = 0;

/// The table. The last one stands for translate:FROM-TO.
std::span<const PromptTemplate> prompt_templates();

/// The template of that name, such as "world" or "translate:English-German". Throws Error that lists the
/// names.
PromptTemplate find_prompt_template(std::string_view name);

/// The one that a model was trained for, by the name of the checkpoint that it was made of (its date too),
/// its version and the size of its vocabulary.
PromptTemplate choose_prompt_template(std::string_view source, Version version, int64_t n_vocab);

/// The pieces of a prompt as text. Throws Error where `text` lacks what the template needs, or a system text
/// is given to one that takes none.
std::string start_text(const PromptTemplate& form, std::string_view system);
std::string message_text(const PromptTemplate& form, std::string_view text);

/// A message as models know them: CR LF becomes LF, blanks at both ends go (those of Unicode too), and so do
/// empty lines, which would end the message.
std::string clean_message(std::string_view text);

/// How a model thinks before it answers (G1 models; names as in --think).
enum class Think : uint8_t {
  off,    ///< as the model likes
  fast,   ///< an empty block: the answer follows at once
  on,     ///< a block of any length
  a_bit,  ///< "short"
  a_lot,  ///< "long"
};
Think find_think(std::string_view name);
std::string_view name_of(Think think);

/// What stands behind the message, and behind the place where the reply begins.
std::string_view think_wish(Think think);
std::string_view think_opener(Think think);

}  // namespace rwkv
