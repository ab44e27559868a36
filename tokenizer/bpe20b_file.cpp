#include "tokenizer/bpe20b_file.h"

#include <fmt/format.h>

#include <optional>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "tokenizer/utf8.h"

namespace rwkv {

namespace {

/// Ids by what the file calls a token: byte-level symbols, not bytes.
using SymbolIds = std::unordered_map<std::string_view, int32_t>;

/// The byte-level alphabet: each byte is written as a printable character, itself where it is one in Latin-1,
/// else one of those from U+0100 on.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    char32_t next = 256;
    for (char32_t byte = 0; byte < 256; byte++) {
      const bool is_printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      const char32_t code = is_printable ? byte : next++;
      bytes_.emplace(code, static_cast<char>(static_cast<unsigned char>(byte)));
      append_utf8(code, symbols_[byte]);
    }
  }

  [[nodiscard]] const std::string& symbol(size_t byte) const { return symbols_[byte]; }

  /// Nothing for a text with other characters than those of the alphabet.
  [[nodiscard]] std::optional<std::string> to_bytes(std::string_view symbols) const {
    std::string bytes;
    while (!symbols.empty()) {
      const Utf8Char c = read_utf8(symbols);
      const auto found = bytes_.find(c.code);
      if (c.kind != Utf8Char::Kind::whole || found == bytes_.end()) return std::nullopt;
      bytes += found->second;
      symbols.remove_prefix(c.length);
    }
    return bytes;
  }

 private:
  std::array<std::string, 256> symbols_;
  std::unordered_map<char32_t, char> bytes_;
};

class Reader {
 public:
  Reader(const Json& root, const std::string& path) : root_(root), path_(path) {}

  Bpe20bFile read() {
    if (root_.object() == nullptr) fail("not a JSON object");
    check_pipeline();
    const Json& model = member(root_, "model");
    check_model(model);
    read_added_tokens();
    read_vocabulary(model);
    find_bytes();
    return {std::move(tokens_), byte_ids_, read_merges(model), std::move(added_), nfc_};
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}: {}: expected a tokenizer file like 20B_tokenizer.json", path_, what));
  }

  const Json& member(const Json& parent, const char* key) const {
    const Json* found = parent.find(key);
    if (found == nullptr) fail(fmt::format("\"{}\" is missing", key));
    return *found;
  }

  /// True where the member is absent, null, false or an empty string.
  static bool is_off(const Json& parent, const char* key) {
    const Json* found = parent.find(key);
    if (found == nullptr || std::holds_alternative<std::nullptr_t>(found->value)) return true;
    if (const bool* flag = std::get_if<bool>(&found->value)) return !*flag;
    return found->string() != nullptr && found->string()->empty();
  }

  void require_off(const Json& parent, const char* key, const char* of) const {
    if (!is_off(parent, key)) fail(fmt::format("\"{}\" of {} is not supported", key, of));
  }

  /// True where the member is an object of this type, false where it is absent or null; fails for other
  /// types.
  bool require_type(const char* key, std::string_view type) const {
    if (is_off(root_, key)) return false;
    const Json& part = member(root_, key);
    const Json* name = part.object() != nullptr ? part.find("type") : nullptr;
    if (name == nullptr || name->string() == nullptr || *name->string() != type) {
      fail(fmt::format("\"{}\" is not of type {}", key, type));
    }
    return true;
  }

  /// Everything in the file besides the model and the added tokens.
  void check_pipeline() {
    require_off(root_, "truncation", "the file");
    require_off(root_, "padding", "the file");
    nfc_ = require_type("normalizer", "NFC");
    require_type("post_processor", "ByteLevel");
    require_type("decoder", "ByteLevel");
    if (!require_type("pre_tokenizer", "ByteLevel")) fail("\"pre_tokenizer\" is missing");
    const Json& cutter = member(root_, "pre_tokenizer");
    require_off(cutter, "add_prefix_space", "the pre_tokenizer");
    if (cutter.find("use_regex") != nullptr && is_off(cutter, "use_regex")) {
      fail("a pre_tokenizer without \"use_regex\" is not supported");
    }
  }

  void check_model(const Json& model) const {
    if (model.object() == nullptr) fail("\"model\" is not an object");
    const Json* type = model.find("type");
    if (type != nullptr && (type->string() == nullptr || *type->string() != "BPE")) {
      fail("\"model\" is not of type BPE");
    }
    for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                            "byte_fallback", "ignore_merges"}) {
      require_off(model, key, "the model");
    }
  }

  int32_t id_of(const Json& json, std::string_view token) const {
    const uint64_t* id = json.unsigned_number();
    if (id == nullptr || *id > static_cast<uint64_t>(Vocabulary::max_id)) {
      fail(
          fmt::format("the id of \"{}\" is not a number from 0 to {}", printable(token), Vocabulary::max_id));
    }
    return static_cast<int32_t>(*id);
  }

  void add_token(int32_t id, std::string_view bytes) {
    if (bytes.empty()) fail(fmt::format("token {} is empty", id));
    if (bytes.size() > Vocabulary::max_token_bytes) {
      fail(fmt::format("token {} has {} bytes, more than {}", id, bytes.size(), Vocabulary::max_token_bytes));
    }
    if (!tokens_.add(id, bytes)) fail(fmt::format("id {} stands for two tokens", id));
  }

  void read_added_tokens() {
    const Json* list = root_.find("added_tokens");
    if (list == nullptr) return;
    if (list->array() == nullptr) fail("\"added_tokens\" is not a list");
    for (const Json& item : *list->array()) {
      if (item.object() == nullptr) fail("an added token is not an object");
      const std::string* content = member(item, "content").string();
      if (content == nullptr) fail("the content of an added token is not a text");
      const bool* normalized = std::get_if<bool>(&member(item, "normalized").value);
      if (normalized == nullptr) fail("\"normalized\" of an added token is neither true nor false");
      for (const char* key : {"single_word", "lstrip", "rstrip"}) require_off(item, key, "an added token");
      const int32_t id = id_of(member(item, "id"), *content);
      add_token(id, *content);
      if (!added_ids_.emplace(*content, id).second) {
        fail(fmt::format("added token \"{}\" stands twice", printable(*content)));
      }
      added_.push_back({id, *content, *normalized});
    }
  }

  void read_vocabulary(const Json& model) {
    const Json::Object* vocabulary = member(model, "vocab").object();
    if (vocabulary == nullptr) fail("\"vocab\" is not an object");
    symbol_ids_.reserve(vocabulary->size());
    for (const auto& [symbols, json] : *vocabulary) {
      const int32_t id = id_of(json, symbols);
      symbol_ids_.emplace(symbols, id);
      const auto added = added_ids_.find(symbols);
      if (added != added_ids_.end()) {
        if (added->second != id) {
          fail(fmt::format("token \"{}\" has id {} in the vocabulary and {} as an added token",
                           printable(symbols), id, added->second));
        }
        continue;
      }
      const auto bytes = alphabet_.to_bytes(symbols);
      if (!bytes) fail(fmt::format("token \"{}\" is not in the byte-level alphabet", printable(symbols)));
      add_token(id, *bytes);
    }
  }

  void find_bytes() {
    for (size_t byte = 0; byte < byte_ids_.size(); byte++) {
      const auto found = symbol_ids_.find(alphabet_.symbol(byte));
      byte_ids_[byte] = found != symbol_ids_.end() ? found->second : -1;
      const bool is_in_utf8 = byte < 0xc0 || (byte > 0xc1 && byte < 0xf5);
      if (byte_ids_[byte] < 0 && is_in_utf8) {
        fail(fmt::format("no token stands for the single byte {:02x}", byte));
      }
    }
  }

  /// The two sides of a merge: "a b", or ["a", "b"] in newer files.
  static std::optional<std::pair<std::string_view, std::string_view>> sides_of(const Json& json) {
    if (const std::string* text = json.string()) {
      const std::string_view both = *text;
      const size_t space = both.find(' ');
      if (space == std::string_view::npos) return std::nullopt;
      return std::pair(both.substr(0, space), both.substr(space + 1));
    }
    const Json::Array* both = json.array();
    if (both == nullptr || both->size() != 2) return std::nullopt;
    const std::string* left = (*both)[0].string();
    const std::string* right = (*both)[1].string();
    if (left == nullptr || right == nullptr) return std::nullopt;
    return std::pair<std::string_view, std::string_view>(*left, *right);
  }

  MergeTable read_merges(const Json& model) const {
    constexpr size_t most = 1 << 20;
    const Json::Array* list = member(model, "merges").array();
    if (list == nullptr) fail("\"merges\" is not a list");
    if (list->size() > most) fail(fmt::format("{} merges, more than {}", list->size(), most));
    MergeTable merges(list->size());
    for (size_t i = 0; i < list->size(); i++) {
      const auto sides = sides_of((*list)[i]);
      if (!sides) fail(fmt::format("merge {} is not a pair of tokens", i));
      const auto id = [&](std::string_view symbols) {
        const auto found = symbol_ids_.find(symbols);
        if (found == symbol_ids_.end()) {
          fail(fmt::format("merge {}: \"{}\" is not in the vocabulary", i, printable(symbols)));
        }
        return found->second;
      };
      const int32_t left = id(sides->first);
      const int32_t right = id(sides->second);
      const std::string joined = std::string(sides->first).append(sides->second);
      if (!merges.add(left, right, id(joined))) fail(fmt::format("merge {} stands twice", i));
    }
    return merges;
  }

  const Json& root_;
  const std::string& path_;
  const ByteAlphabet alphabet_;
  Vocabulary tokens_;
  std::vector<AddedToken> added_;
  std::unordered_map<std::string_view, int32_t> added_ids_;
  SymbolIds symbol_ids_;
  std::array<int32_t, 256> byte_ids_{};
  bool nfc_ = false;
};

}  // namespace

Bpe20bFile parse_bpe20b_file(std::string_view json, const std::string& path) {
  const Json root = parse_json(json, path);
  return Reader(root, path).read();
}

}  // namespace rwkv
