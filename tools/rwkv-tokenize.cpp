// Text to token ids and back, on standard input and output.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "apps/common/program.h"
#include "core/error.h"
#include "model/model_file.h"
#include "tokenizer/tokenizer.h"

namespace rwkv::apps {
namespace {

// A model file holds its vocabulary; anything else is taken for a vocabulary file.
std::unique_ptr<Tokenizer> open_vocabulary(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  bool container = file.bytes().size() > 9 && static_cast<char>(file.bytes()[8]) == '{' &&
                   static_cast<char>(file.bytes()[0]) != '{';
  if (!container) return make_tokenizer(file.bytes(), path);
  ModelFile model = ModelFile::open(file);
  if (model.vocabulary().empty()) {
    throw Error(fmt::format("{}: holds no vocabulary; name a vocabulary file instead", path));
  }
  return make_tokenizer(model.vocabulary(), path);
}

void encode(const Tokenizer& tokenizer, std::string_view text) {
  std::string line;
  for (int32_t id : tokenizer.encode(text)) {
    if (!line.empty()) line += ' ';
    line += std::to_string(id);
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
}

void decode(const Tokenizer& tokenizer, const std::string& text) {
  const char *at = text.data(), *end = at + text.size();
  while (true) {
    while (at != end && (std::isspace(static_cast<unsigned char>(*at)) != 0 || *at == ',')) at++;
    if (at == end) return;
    int32_t id = 0;
    auto [next, code] = std::from_chars(at, end, id);
    if (code != std::errc()) {
      throw Error(
          fmt::format("standard input: byte {}: not a token id; ids are whole numbers with blanks between "
                      "them",
                      at - text.data()));
    }
    std::string_view bytes = tokenizer.bytes(id);
    if (bytes.empty() && id != 0) {
      throw Error(
          fmt::format("standard input: byte {}: the vocabulary has no token {}", at - text.data(), id));
    }
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    at = next;
  }
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  std::string path;
  bool decoding = false;
  return run_program(
      argc, argv,
      {"rwkv-tokenize", "Turns text into token ids, or ids into text: standard input to standard output.",
       "  echo -n 'Hello, world' | rwkv-tokenize model.rwkv\n"
       "  echo 33155 45 40213 | rwkv-tokenize rwkv_vocab_v20230424.txt --decode"},
      [&](CLI::App& app) {
        app.add_option("FILE", path, "A model file with its vocabulary, or a vocabulary file")->required();
        app.add_flag("--decode", decoding, "Ids to bytes");
      },
      [&] {
        auto tokenizer = rwkv::apps::open_vocabulary(path);
        std::string input(std::istreambuf_iterator<char>(std::cin), {});
        decoding ? decode(*tokenizer, input) : encode(*tokenizer, input);
      });
}
