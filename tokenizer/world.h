// The World tokenizer: at every place of the text, the longest token that fits.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace rwkv {

/// Makes a tokenizer from the text of a World vocabulary file. Throws Error as parse_world_vocabulary does.
std::unique_ptr<Tokenizer> make_world_tokenizer(std::string_view text, const std::string& path);

}  // namespace rwkv
