// Prompt files of v2/chat.py and rwkv.cpp: who talks, and what the model reads first.
#pragma once

#include <string>

#include "model/text/prompt_template.h"

namespace rwkv::apps {

/// The name of a template that came from a file.
constexpr const char* prompt_file_template = "prompt file";

/// Reads `user`, `bot`, `interface` (what stands behind a name, ":" without it) and `init_prompt` from a
/// Python file, as in ChatRWKV/v2/prompt, or `user`, `bot`, `separator` and `prompt` from a JSON file, as in
/// rwkv.cpp. The file is read, never run: values are plain string literals, in which {user}, {bot} and
/// {interface} may stand. `base` gives the rest. Throws Error.
PromptTemplate read_prompt_file(const std::string& path, const PromptTemplate& base);

/// A template of that kind without a beginning, as the notes of a session have it.
PromptTemplate template_of_names(const PromptTemplate& base, const std::string& user, const std::string& bot,
                                 const std::string& message);

}  // namespace rwkv::apps
