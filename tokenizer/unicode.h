// The part of Unicode that the 20B tokenizer needs: classes of characters, and normalization form C.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rwkv {

enum class CharClass : uint8_t {
  other,
  letter,  ///< general category L
  number,  ///< general category N
  space,   ///< property White_Space
};

CharClass char_class(char32_t code);

/// Appends the text in normalization form C. What is not UTF-8 stays as it is, and nothing composes across
/// it.
void append_nfc(std::string_view text, std::string& out);

}  // namespace rwkv
