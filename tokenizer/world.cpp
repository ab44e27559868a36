#include "tokenizer/world.h"

#include <utility>

#include "tokenizer/trie.h"
#include "tokenizer/vocabulary.h"

namespace rwkv {

namespace {

Trie make_trie(const WorldVocabulary& vocabulary) {
  std::vector<Trie::Key> keys;
  keys.reserve(vocabulary.sorted_ids.size());
  for (int32_t id : vocabulary.sorted_ids) {
    keys.push_back({vocabulary.tokens.bytes(id), static_cast<uint16_t>(id)});
  }
  return Trie(keys);
}

class WorldTokenizer final : public Tokenizer {
 public:
  explicit WorldTokenizer(WorldVocabulary&& vocabulary)
      : trie_(make_trie(vocabulary)), tokens_(std::move(vocabulary.tokens)) {}

  [[nodiscard]] TokenizerKind kind() const override { return TokenizerKind::world; }
  [[nodiscard]] std::string_view bytes(int32_t id) const override { return tokens_.bytes(id); }
  [[nodiscard]] int32_t size() const override { return tokens_.size(); }

  void encode(std::string_view bytes, std::vector<int32_t>& ids) const override {
    while (!bytes.empty()) {
      // Every single byte is a token, so there is always a match.
      const Trie::Match match = trie_.longest(bytes);
      ids.push_back(match.value);
      bytes.remove_prefix(match.length);
    }
  }

 private:
  Trie trie_;
  Vocabulary tokens_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_world_tokenizer(std::string_view text, const std::string& path) {
  return std::make_unique<WorldTokenizer>(parse_world_vocabulary(text, path));
}

}  // namespace rwkv
