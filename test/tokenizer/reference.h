// The reference lines in test/data/tokenizer: texts with the ids that the tokenizers of the Python world give
// them.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "test/support.h"
#include "tokenizer/tokenizer.h"

#ifndef RWKV_WORLD_VOCABULARY
#error "define RWKV_WORLD_VOCABULARY as the path of rwkv_vocab_v20230424.txt"
#endif

namespace rwkv::test {

struct ReferenceLine {
  std::string text;
  std::vector<int32_t> ids;
};

inline std::string decode_base64(std::string_view digits) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (char digit : digits) {
    if (digit == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(alphabet.find(digit));
    count += 6;
    if (count >= 8) bytes += static_cast<char>(static_cast<unsigned char>(bits >> (count -= 8)));
  }
  return bytes;
}

/// The lines of a file in test/data/tokenizer: {"utf8_base64": TEXT, "ids": [ID, ...]}.
inline std::vector<ReferenceLine> reference_lines(const std::string& name) {
  const std::string path = data_path("tokenizer/" + name);
  const std::string file = read_file(path);
  std::vector<ReferenceLine> lines;
  for (size_t begin = 0; begin < file.size();) {
    const size_t end = file.find('\n', begin);
    const Json json = parse_json(std::string_view(file).substr(begin, end - begin), path);
    ReferenceLine& line = lines.emplace_back();
    line.text = decode_base64(*json.find("utf8_base64")->string());
    for (const Json& id : *json.find("ids")->array()) {
      line.ids.push_back(static_cast<int32_t>(*id.unsigned_number()));
    }
    begin = end + 1;
  }
  return lines;
}

inline std::unique_ptr<Tokenizer> make_tokenizer(std::string_view file, const std::string& path = "V") {
  return rwkv::make_tokenizer(std::as_bytes(std::span(file)), path);
}

/// The World tokenizer, read once.
inline const Tokenizer& world() {
  static const auto tokenizer = make_tokenizer(read_file(RWKV_WORLD_VOCABULARY), RWKV_WORLD_VOCABULARY);
  return *tokenizer;
}

/// The 20B tokenizer, read once.
inline const Tokenizer& bpe20b() {
  static const auto tokenizer =
      make_tokenizer(read_file(data_path("../../tokenizer/20B_tokenizer.json")), "20B_tokenizer.json");
  return *tokenizer;
}

}  // namespace rwkv::test
