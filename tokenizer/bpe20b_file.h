// Reader of HuggingFace tokenizer files of the form of 20B_tokenizer.json: untrusted JSON to tables.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/merges.h"
#include "tokenizer/vocabulary.h"

namespace rwkv {

/// A text that is one token wherever it stands.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool normalized = false;  ///< looked for after the text is normalized, not before
};

struct Bpe20bFile {
  Vocabulary tokens;
  std::array<int32_t, 256> byte_ids{};  ///< -1 for a byte without a token of its own, which UTF-8 never has
  MergeTable merges;
  std::vector<AddedToken> added;
  bool nfc = false;  ///< text is brought to Unicode's normalization form C
};

/// Throws Error that begins with `path` for what is not such a file, and for every option of such files that
/// would change the ids and is not supported.
Bpe20bFile parse_bpe20b_file(std::string_view json, const std::string& path);

}  // namespace rwkv
