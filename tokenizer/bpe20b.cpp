#include "tokenizer/bpe20b.h"

#include <algorithm>
#include <utility>

#include "tokenizer/bpe20b_file.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"
#include "tokenizer/words.h"

namespace rwkv {

namespace {

/// Finds added tokens in a text.
class AddedTokens {
 public:
  /// Takes those that are looked for before the text is normalized, or those after.
  AddedTokens(const Bpe20bFile& file, bool normalized) : trie_({}) {
    std::vector<std::pair<std::string, int32_t>> sorted;
    for (const AddedToken& token : file.added) {
      if (token.normalized != normalized) continue;
      std::string content = token.content;
      if (normalized && file.nfc) {
        content.clear();
        append_nfc(token.content, content);
      }
      sorted.emplace_back(std::move(content), token.id);
    }
    std::sort(sorted.begin(), sorted.end());
    std::vector<Trie::Key> keys;
    for (const auto& [content, id] : sorted) {
      if (!keys.empty() && keys.back().bytes == content) continue;
      ids_.push_back(id);
      keys.push_back({content, static_cast<uint16_t>(ids_.size())});
    }
    trie_ = Trie(keys);
  }

  /// Calls `rest` for each stretch of text without added tokens, and `added` with the id of each token
  /// between them.
  template <class Rest, class Added>
  void split(std::string_view text, const Rest& rest, const Added& added) const {
    size_t begin = 0;
    for (size_t i = 0; i < text.size();) {
      const Trie::Match match = trie_.longest(text.substr(i));
      if (match.value == 0) {
        i++;
        continue;
      }
      if (i > begin) rest(text.substr(begin, i - begin));
      added(ids_[match.value - 1u]);
      i += match.length;
      begin = i;
    }
    if (begin < text.size()) rest(text.substr(begin));
  }

 private:
  Trie trie_;
  std::vector<int32_t> ids_;
};

class Bpe20bTokenizer final : public Tokenizer {
 public:
  explicit Bpe20bTokenizer(Bpe20bFile&& file)
      : file_(std::move(file)), before_(file_, false), after_(file_, true) {}

  [[nodiscard]] TokenizerKind kind() const override { return TokenizerKind::bpe20b; }
  [[nodiscard]] std::string_view bytes(int32_t id) const override { return file_.tokens.bytes(id); }
  [[nodiscard]] int32_t size() const override { return file_.tokens.size(); }

  void encode(std::string_view bytes, std::vector<int32_t>& ids) const override {
    Merger merger(file_.merges);
    const auto added = [&](int32_t id) { ids.push_back(id); };
    const auto words = [&](std::string_view text) { encode_words(text, merger, ids); };
    const auto normalize = [&](std::string_view text) {
      std::string normal;
      if (file_.nfc) {
        append_nfc(text, normal);
        text = normal;
      }
      after_.split(text, words, added);
    };
    before_.split(bytes, normalize, added);
  }

 private:
  /// Longer words are cut, which bounds the memory that one takes.
  static constexpr size_t max_word_bytes = 1 << 20;

  void encode_words(std::string_view text, Merger& merger, std::vector<int32_t>& ids) const {
    std::vector<int32_t> tokens;
    while (!text.empty()) {
      std::string_view word = text.substr(0, first_word(text));
      text.remove_prefix(word.size());
      while (!word.empty()) {
        const std::string_view piece = word.substr(0, max_word_bytes);
        word.remove_prefix(piece.size());
        tokens.clear();
        for (char byte : piece) append_byte(static_cast<unsigned char>(byte), tokens);
        merger.merge(tokens);
        ids.insert(ids.end(), tokens.begin(), tokens.end());
      }
    }
  }

  void append_byte(unsigned char byte, std::vector<int32_t>& tokens) const {
    if (file_.byte_ids[byte] >= 0) {
      tokens.push_back(file_.byte_ids[byte]);
      return;
    }
    // Such bytes never stand in UTF-8. They become U+FFFD.
    for (size_t part : {0xef, 0xbf, 0xbd}) tokens.push_back(file_.byte_ids[part]);
  }

  Bpe20bFile file_;
  AddedTokens before_;
  AddedTokens after_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe20b_tokenizer(std::string_view json, const std::string& path) {
  return std::make_unique<Bpe20bTokenizer>(parse_bpe20b_file(json, path));
}

}  // namespace rwkv
