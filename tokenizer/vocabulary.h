// The tokens of a vocabulary, and the reader of the World vocabulary file: untrusted text to bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rwkv {

/// The bytes of every token, by id.
class Vocabulary {
 public:
  static constexpr int32_t max_id = 65535;
  /// Longer tokens are refused: the time to encode a text grows with the longest token.
  static constexpr size_t max_token_bytes = 1024;

  /// False, and nothing is added, when the id has bytes already. Requires 0 <= id <= max_id and
  /// 1 <= bytes.size() <= max_token_bytes.
  bool add(int32_t id, std::string_view bytes);

  /// The bytes of one id; empty for an id without bytes. Valid until the next add() and as long as this
  /// object stays where it is.
  [[nodiscard]] std::string_view bytes(int32_t id) const {
    if (id < 0 || id >= size()) return {};
    const Piece piece = pieces_[static_cast<size_t>(id)];
    return std::string_view(text_).substr(piece.offset, piece.length);
  }

  /// 1 + the largest id with bytes.
  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(pieces_.size()); }

  /// All ids with bytes, in ascending order of their bytes (compared as unsigned).
  [[nodiscard]] std::vector<int32_t> sorted_ids() const;

 private:
  struct Piece {
    uint32_t offset = 0;
    uint32_t length = 0;
  };

  std::string text_;
  std::vector<Piece> pieces_;
};

/// A World vocabulary, and its ids in ascending order of their bytes.
struct WorldVocabulary {
  Vocabulary tokens;
  std::vector<int32_t> sorted_ids;
};

/// Reads the lines of a World vocabulary: `ID LITERAL LENGTH`, one space between the fields, LF or CR LF at
/// the end. LITERAL is a Python literal: '...' or "..." (encoded as UTF-8) or b'...' or b"..." (bytes). It is
/// parsed, never evaluated. LENGTH counts bytes. Ids may come in any order and leave gaps.
///
/// Throws Error, `PATH: line N: what is wrong`, for everything else, for ids outside 1 to 65535, for an id or
/// bytes that stand twice, and for a single byte that no token stands for: every text can be encoded.
WorldVocabulary parse_world_vocabulary(std::string_view text, const std::string& path);

}  // namespace rwkv
