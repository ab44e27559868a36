// The tokenizer of RWKV-4 Pile models: GPT-NeoX's byte-level byte-pair encoding, as 20B_tokenizer.json
// describes it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace rwkv {

/// Makes a tokenizer from the text of a HuggingFace tokenizer file. Throws Error that begins with `path`.
std::unique_ptr<Tokenizer> make_bpe20b_tokenizer(std::string_view json, const std::string& path);

}  // namespace rwkv
