#include "tokenizer/tokenizer.h"

#include "tokenizer/bpe20b.h"
#include "tokenizer/world.h"

namespace rwkv {

std::vector<int32_t> Tokenizer::encode(std::string_view bytes) const {
  std::vector<int32_t> ids;
  encode(bytes, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (int32_t id : ids) text += bytes(id);
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(std::span<const std::byte> file, const std::string& path) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool is_json = first != std::string_view::npos && text[first] == '{';
  return is_json ? make_bpe20b_tokenizer(text, path) : make_world_tokenizer(text, path);
}

}  // namespace rwkv
