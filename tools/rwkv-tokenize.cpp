// Text to token ids and back, on standard input and output.
#include <fmt/format.h>

#include <cstdio>

#include "apps/common/line_reader.h"
#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/token_ids.h"
#include "core/error.h"
#include "tokenizer/tokenizer.h"

namespace rwkv::apps {
namespace {

void encode(const Tokenizer& tokenizer, std::string_view text) {
  std::string line;
  for (int32_t id : tokenizer.encode(text)) {
    if (!line.empty()) line += ' ';
    line += std::to_string(id);
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
}

void decode(const Tokenizer& tokenizer, std::string_view text) {
  std::string bytes;
  for (int32_t id : parse_token_ids(text, "standard input")) {
    std::string_view piece = tokenizer.bytes(id);
    if (piece.empty() && id != 0)
      throw Error(fmt::format("standard input: the vocabulary has no token {}", id));
    bytes += piece;
  }
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
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
        constexpr size_t limit = size_t{4} << 30;
        std::string input = read_all_input(limit);
        decoding ? decode(*tokenizer, input) : encode(*tokenizer, input);
      });
}
