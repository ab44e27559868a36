// How well a model predicts a text, under one strategy or several.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "model/executor.h"
#include "model/text/score.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr int32_t end_of_text = 0;  // what models have seen before the beginning of a text

struct Options {
  ModelOptions model;
  std::vector<std::string> strategies;
  std::string text, lambada;
  int64_t most_tokens = 0;
};

// A model under one strategy on its way through a text.
struct Reader {
  std::shared_ptr<const Model> model;
  Executor executor;
  State state;
  std::vector<float> logits;
  TextScore score;
  Divergence from_first;

  Reader(std::shared_ptr<const Model> opened, int64_t chunk)
      : model(std::move(opened)), executor(model, chunk), state(model) {}

  void read(std::span<const int32_t> tokens) {
    logits.resize(tokens.size() * vocabulary());
    executor.forward(tokens, state, logits);
  }
  [[nodiscard]] size_t vocabulary() const { return static_cast<size_t>(model->config().n_vocab); }
  [[nodiscard]] std::span<const float> after(size_t token) const {
    return std::span(logits).subspan(token * vocabulary(), vocabulary());
  }
};

std::vector<std::unique_ptr<Reader>> open_readers(const Options& options) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (const std::string& strategy : options.strategies) {
    ModelOptions one = options.model;
    one.strategy = strategy;
    readers.push_back(std::make_unique<Reader>(open_model(one), one.chunk));
  }
  return readers;
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

using Readers = std::vector<std::unique_ptr<Reader>>;

// All readers take a chunk, then all take the next one.
void score_text(Readers& readers, std::span<const int32_t> tokens, int64_t chunk) {
  ProgressLine progress;
  std::vector<int32_t> before(tokens.size());  // the token in front of each
  for (size_t i = 0; i < tokens.size(); i++) before[i] = i == 0 ? end_of_text : tokens[i - 1];
  for (size_t at = 0; at < tokens.size(); at += static_cast<size_t>(chunk)) {
    const size_t count = std::min(static_cast<size_t>(chunk), tokens.size() - at);
    for (auto& reader : readers) reader->read(std::span(before).subspan(at, count));
    for (auto& reader : readers) {
      for (size_t i = 0; i < count; i++) {
        reader->score.add(reader->after(i), tokens[at + i]);
        if (reader != readers.front()) reader->from_first.add(readers.front()->after(i), reader->after(i));
      }
    }
    progress.show("reading", at + count, tokens.size());
  }
}

// The text before a token, for a person to find the place.
std::string context(const Tokenizer& tokenizer, std::span<const int32_t> tokens, int64_t end) {
  constexpr int64_t length = 6;
  const int64_t begin = std::max<int64_t>(end - length, 0);
  return printable(
      tokenizer.decode(tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))));
}

void print_text_scores(const Readers& readers, const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  const size_t bytes = tokenizer.decode(tokens).size();
  size_t width = 8;
  for (const auto& reader : readers) width = std::max(width, to_string(reader->model->strategy()).size());
  fmt::print("{} bytes, {} tokens\n\n{:{}}  bits/byte  bits/token  perplexity", bytes, tokens.size(),
             "strategy", width);
  if (readers.size() > 1) fmt::print("  KL divergence   flips  worst token");
  fmt::print("\n");
  for (const auto& reader : readers) {
    const double tokens_read = static_cast<double>(reader->score.tokens),
                 bits = reader->score.nats / std::log(2.0);
    fmt::print("{:{}}  {:9.4f}  {:10.4f}  {:10.7g}", to_string(reader->model->strategy()), width,
               bits / static_cast<double>(bytes), bits / tokens_read,
               std::exp(reader->score.nats / tokens_read));
    if (const Divergence& d = reader->from_first; d.tokens > 0) {
      fmt::print("  {:13.6f}  {:5.2f}%  {:.4f} after \"{}\"", d.sum / tokens_read,
                 100 * static_cast<double>(d.flips) / tokens_read, d.worst,
                 context(tokenizer, tokens, d.worst_at));
    }
    fmt::print("\n");
  }
}

// A passage and its last word, the blank before it included.
struct Passage {
  std::vector<int32_t> beginning, word;
};

std::vector<Passage> read_passages(const std::string& path, const Tokenizer& tokenizer) {
  const MappedFile file = MappedFile::open(path);
  std::string_view rest = text_of(file);
  std::vector<Passage> passages;
  for (int64_t line = 1; !rest.empty(); line++) {
    const std::string_view one = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    if (one.empty()) continue;
    const std::string what = fmt::format("{}: line {}", path, line);
    const Json json = parse_json(one, what);
    const Json* text = json.object() == nullptr ? nullptr : json.find("text");
    const size_t blank =
        text == nullptr || text->string() == nullptr ? std::string::npos : text->string()->rfind(' ');
    if (blank == std::string::npos || blank == 0) {
      throw Error(what + ": it is to be an object with a \"text\" of several words");
    }
    const std::string_view whole = *text->string();
    passages.push_back({tokenizer.encode(whole.substr(0, blank)), tokenizer.encode(whole.substr(blank))});
    passages.back().beginning.insert(passages.back().beginning.begin(), end_of_text);
  }
  if (passages.empty()) throw Error(fmt::format("{}: there is no passage in it", path));
  return passages;
}

// Accuracy counts words of which every token is the likeliest one.
void score_lambada(Readers& readers, const std::vector<Passage>& passages) {
  fmt::print("{} passages\n\n", passages.size());
  for (auto& reader : readers) {
    ProgressLine progress;
    int64_t right = 0;
    for (size_t n = 0; n < passages.size(); n++) {
      std::vector<int32_t> tokens = passages[n].beginning;
      tokens.insert(tokens.end(), passages[n].word.begin(), passages[n].word.end() - 1);
      reader->state.reset();
      reader->read(tokens);
      const int64_t before = reader->score.correct;
      const auto length = static_cast<int64_t>(passages[n].word.size());
      for (size_t i = 0; i < passages[n].word.size(); i++)
        reader->score.add(reader->after(passages[n].beginning.size() - 1 + i), passages[n].word[i]);
      right += reader->score.correct - before == length ? 1 : 0;
      progress.show("reading", n + 1, passages.size());
    }
    progress.clear();
    const auto count = static_cast<double>(passages.size());
    fmt::print("{}: accuracy {:.2f}%, perplexity {:.3f} a word\n", to_string(reader->model->strategy()),
               100 * static_cast<double>(right) / count, std::exp(reader->score.nats / count));
  }
}

void run(Options& options) {
  if (options.text.empty() == options.lambada.empty())
    throw UsageError("give a TEXT file, or --lambada FILE");
  if (options.strategies.empty()) options.strategies.emplace_back();
  Readers readers = open_readers(options);
  const auto tokenizer = open_tokenizer(*readers.front()->model, options.model);
  if (!options.lambada.empty()) return score_lambada(readers, read_passages(options.lambada, *tokenizer));
  const MappedFile file = MappedFile::open(options.text);
  std::vector<int32_t> tokens = tokenizer->encode(text_of(file));
  if (tokens.empty()) throw Error(fmt::format("{}: is empty", options.text));
  if (options.most_tokens > 0)
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(options.most_tokens)));
  score_text(readers, tokens, options.model.chunk);
  print_text_scores(readers, *tokenizer, tokens);
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  Options options;
  return run_program(
      argc, argv,
      {"perplexity",
       "How well a model predicts a text: bits for each byte and token, and the perplexity. With several "
       "strategies also\n"
       "how far each is from the first one: the mean Kullback-Leibler divergence in nats, how often another "
       "token is the\nlikeliest, and where they differ most.",
       "  perplexity model.rwkv book.txt\n"
       "  perplexity model.pth book.txt --strategy 'cpu fp32' --strategy 'cpu bf16i8' --strategy 'cpu "
       "bf16i4'\n"
       "  perplexity model.rwkv --lambada lambada_test.jsonl"},
      [&](CLI::App& app) {
        add_model_options(app, options.model, true, &options.strategies);
        app.add_option("TEXT", options.text, "A text file");
        app.add_option("--lambada", options.lambada,
                       "Passages instead, {\"text\": ...} on each line, of which the last word counts")
            ->check(not_empty());
        app.add_option("--tokens", options.most_tokens, "Only so many tokens of the text (default: all)")
            ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
      },
      [&] { run(options); });
}
