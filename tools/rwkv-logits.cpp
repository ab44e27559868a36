// Writes a model's logits, to compare them with other programs'.
#include <fmt/format.h>

#include <algorithm>

#include "apps/common/line_reader.h"
#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "apps/common/token_ids.h"
#include "core/error.h"
#include "core/output_file.h"
#include "model/executor.h"

namespace rwkv::apps {
namespace {

struct Options {
  ModelOptions model;
  std::string tokens, output, state;
  bool last = false;
};

std::vector<int32_t> read_tokens(const std::string& path) {
  if (path == "-") return parse_token_ids(read_all_input(), "standard input");
  MappedFile file = MappedFile::open(path);
  return parse_token_ids({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path);
}

void run(const Options& options) {
  auto model = open_model(options.model);
  std::vector<int32_t> tokens = read_tokens(options.tokens);
  if (tokens.empty()) throw Error(fmt::format("{}: no token ids", options.tokens));
  State state = options.state.empty() ? State(model) : load_session(options.state, model).state;
  check_not_input(options.output, {model->file().file.path(), options.tokens, options.state});
  int64_t longest = std::min(options.model.chunk, static_cast<int64_t>(tokens.size()));
  Executor executor(model, longest);
  auto vocab = static_cast<size_t>(model->config().n_vocab);
  auto chunk = static_cast<size_t>(options.model.chunk);
  std::vector<float> logits(options.last ? vocab : std::min(chunk, tokens.size()) * vocab);
  OutputFile out(options.output);
  ProgressLine progress;
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    size_t count = std::min(chunk, tokens.size() - at);
    bool wanted = !options.last || at + count == tokens.size();
    auto room = std::span(logits).first(!wanted ? 0 : options.last ? vocab : count * vocab);
    executor.forward(std::span(tokens).subspan(at, count), state, room);
    out.write(std::as_bytes(room));
    progress.show("tokens", at + count, tokens.size());
  }
  out.commit();
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  Options options;
  return run_program(
      argc, argv,
      {"rwkv-logits",
       "Writes the logits after every token as raw little-endian float32, [tokens, vocabulary].",
       "  rwkv-logits model.rwkv --tokens tokens.txt --output logits.f32\n"
       "  echo 1 2 3 | rwkv-logits model.pth --tokens - --output last.f32 --last --strategy 'cpu bf16'"},
      [&](CLI::App& app) {
        add_model_options(app, options.model, false);
        app.add_option("--tokens", options.tokens,
                       "File of token ids with blanks between them; - for standard input")
            ->required();
        app.add_option("--output", options.output, "File to write")->required();
        app.add_option("--state", options.state, "State file to start from")->check(not_empty());
        app.add_flag("--last", options.last, "Only the logits after the last token");
      },
      [&] { run(options); });
}
