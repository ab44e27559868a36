// GPT-2's cutting of text into words, inside which byte pairs are merged.
#pragma once

#include <cstddef>
#include <string_view>

namespace rwkv {

/// The length of the first word of a text that is not empty. A word is what this expression matches first:
///
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// Bytes that are not UTF-8 count as neither letters, numbers nor space.
size_t first_word(std::string_view text);

}  // namespace rwkv
