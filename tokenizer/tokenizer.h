// Text to token ids and back. Bytes in, bytes out: text need not be UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rwkv {

enum class TokenizerKind {
  world,   ///< greedy longest match over the World vocabulary: models of 65536 tokens, and small ones of that
           ///< form
  bpe20b,  ///< byte-pair encoding of 20B_tokenizer.json: RWKV-4 Pile models, of 50277 tokens
};

/// Does not change once it is made: any number of threads may use one.
class Tokenizer {
 public:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  virtual ~Tokenizer() = default;

  [[nodiscard]] virtual TokenizerKind kind() const = 0;

  /// Appends the ids of the text.
  virtual void encode(std::string_view bytes, std::vector<int32_t>& ids) const = 0;

  /// The bytes of one id; empty for any number that has none (0 and gaps in World, ids past the vocabulary).
  [[nodiscard]] virtual std::string_view bytes(int32_t id) const = 0;

  /// 1 + the largest id with bytes. Models may have more outputs than that.
  [[nodiscard]] virtual int32_t size() const = 0;

  [[nodiscard]] std::vector<int32_t> encode(std::string_view bytes) const;
  [[nodiscard]] std::string decode(std::span<const int32_t> ids) const;
};

/// Reads a vocabulary file of either kind, which its content tells: the lines of a World vocabulary, or a
/// JSON object like 20B_tokenizer.json. Throws Error that begins with `path` for anything else. Keeps nothing
/// of `file`.
std::unique_ptr<Tokenizer> make_tokenizer(std::span<const std::byte> file, const std::string& path);

}  // namespace rwkv
