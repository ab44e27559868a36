// Vocabulary files made for tests: the smallest ones that are accepted, and ways to spoil them.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <vector>

#include "tokenizer/utf8.h"

namespace rwkv::test {

/// The lines of a World vocabulary that hold the 256 single bytes as ids 1 to 256.
inline std::string single_byte_lines() {
  std::string lines;
  for (int byte = 0; byte < 256; byte++) lines += fmt::format("{} b'\\x{:02x}' 1\n", byte + 1, byte);
  return lines;
}

/// A byte as 20B_tokenizer.json writes it inside a JSON string.
inline std::string symbol_of(unsigned byte) {
  static const auto symbols = [] {
    std::vector<std::string> all(256);
    char32_t next = 256;
    for (unsigned b = 0; b < 256; b++) {
      const bool is_itself = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
      if (b == '"' || b == '\\') all[b] += '\\';
      append_utf8(is_itself ? b : next++, all[b]);
    }
    return all;
  }();
  return symbols[byte];
}

/// A small tokenizer file in parts, each of which a test may replace. The single bytes are ids 0 to 255.
struct SmallBpe {
  std::string added =
      R"({"id": 260, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})";
  std::string normalizer = R"({"type": "NFC"})";
  std::string pre_tokenizer = R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true})";
  std::string decoder = R"({"type": "ByteLevel"})";
  std::string rest = R"("truncation": null, "padding": null)";
  std::string model = R"("type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false)";
  std::string bytes = all_bytes();
  std::string words = R"("ab": 256, "abc": 257, "bc": 258, "\u0120a": 259)";
  std::string merges = R"("a b", "ab c", "b c", "\u0120 a")";

  static std::string all_bytes() {
    std::string entries;
    for (unsigned byte = 0; byte < 256; byte++) entries += fmt::format("\"{}\": {}, ", symbol_of(byte), byte);
    return entries;
  }

  [[nodiscard]] std::string json() const {
    return fmt::format(
        R"({{"added_tokens": [{}], "normalizer": {}, "pre_tokenizer": {}, "decoder": {}, {}, "model": {{{}, "vocab": {{{}{}}}, "merges": [{}]}}}})",
        added, normalizer, pre_tokenizer, decoder, rest, model, bytes, words, merges);
  }
};

}  // namespace rwkv::test
