// Talks to a model.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

#include "apps/common/chat_loop.h"
#include "apps/common/interrupt.h"
#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "apps/common/terminal.h"
#include "core/error.h"

namespace rwkv::apps {
namespace {

constexpr const char* demo_source = "guide-2.5m.pth";

struct Options {
  ModelOptions model;
  float temperature = 1.0f, decay = 0.996f;
  std::optional<float> top_p, presence, frequency;
  int top_k = 0;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 4096;
  std::string state, load, prompt;
  bool has_prompt = false;
};

SamplerOptions sampling_of(const Options& options) {
  bool trained = !options.state.empty();
  SamplerOptions sampling;
  sampling.temperature = options.temperature;
  sampling.top_p = options.top_p.value_or(trained ? 0.2f : 0.3f);
  sampling.top_k = options.top_k;
  sampling.presence_penalty = options.presence.value_or(trained ? 0.3f : 0.5f);
  sampling.frequency_penalty = options.frequency.value_or(trained ? 0.3f : 0.5f);
  sampling.penalty_decay = options.decay;
  std::random_device device;
  sampling.seed = options.seed.value_or(uint64_t{device()} << 32 | device());
  return sampling;
}

// What the conversation begins with.
Session start_of(const Options& options, Executor& executor, const Tokenizer& tokenizer,
                 const std::shared_ptr<const Model>& model) {
  const std::string& path = options.state.empty() ? options.load : options.state;
  if (!path.empty()) {
    std::string note;
    Session session = load_session(path, model, &note);
    if (!note.empty()) write_notice(note + "\n");
    return session;
  }
  Session session{State(model), {}, {}};
  std::vector<int32_t> tokens = tokenizer.encode(first_exchange());
  ProgressLine progress;
  feed(executor, tokens, session, [&](int64_t done) {
    progress.show("reading the first exchange", static_cast<uint64_t>(done), tokens.size());
    return false;
  });
  return session;
}

void greet(const Model& model, bool show_first_exchange) {
  const Config& c = model.config();
  std::string text =
      fmt::format("RWKV-{}, {} layers of width {}, {} tokens; {} on {}\n", name_of(c.version), c.n_layer,
                  c.n_embd, c.n_vocab, to_string(model.strategy()), describe_devices(model));
  if (model.file().source() == demo_source) {
    text +=
        "This is a demo model of 2.5 million parameters, trained to answer questions about this software.\n"
        "To talk to a real RWKV checkpoint: make chat MODEL=/path/to/model.pth\n";
  }
  text += "/help lists the commands, Ctrl-C ends a reply, Ctrl-D ends the program.\n\n";
  if (show_first_exchange) text += first_exchange();
  write_output(text);
}

// The demo model that `make chat` makes beside the folder of the programs.
std::string demo_model() {
  std::error_code ignored;
  auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  auto demo = program.parent_path().parent_path() / "demo.rwkv";
  if (!std::filesystem::exists(demo, ignored)) throw UsageError("MODEL is required; see chat --help");
  return demo.string();
}

void run(Options& options) {
  if (options.model.model.empty()) options.model.model = demo_model();
  bool dialogue = !options.has_prompt && is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO);
  std::string prompt = clean_message(options.prompt == "-" ? read_all_input() : options.prompt);
  if (options.has_prompt && prompt.empty()) throw Error(nothing_said);

  auto model = open_model(options.model);
  auto tokenizer = open_tokenizer(*model, options.model);
  Executor executor(model, options.model.chunk);
  Conversation conversation(executor, *tokenizer, start_of(options, executor, *tokenizer, model),
                            sampling_of(options), conversation_options(options.max_tokens));
  ChatLoop loop(conversation, model, dialogue ? ReplyStyle::dialogue : ReplyStyle::bare);
  if (options.has_prompt) {
    loop.answer(prompt);
    return;
  }
  if (dialogue) greet(*model, options.state.empty() && options.load.empty());
  catch_interrupts(dialogue ? SecondInterrupt::ignored : SecondInterrupt::ends);
  auto lines = dialogue ? make_terminal_reader("User:", wants_colour()) : make_pipe_reader();
  int64_t failures = loop.run(*lines);
  if (failures > 0 && !dialogue) throw Error(fmt::format("standard input: {} of the lines failed", failures));
}

void define_options(CLI::App& app, Options& options) {
  add_model_options(app, options.model, true);
  app.get_option("MODEL")->required(false);
  auto* state =
      app.add_option("--state", options.state, "Trained state to start from, in place of a first exchange");
  app.add_option("--load", options.load,
                 "Conversation to go on with, as /save or the Python package (.pth) wrote it")
      ->excludes(state);
  app.add_option("--prompt", options.prompt, "Answer this and exit; - reads it from standard input")
      ->each([&options](const std::string&) { options.has_prompt = true; });
  app.add_option("--temperature", options.temperature, "0 draws the likeliest token (default 1)")
      ->check(finite_range(0, 100));
  app.add_option("--top-p", options.top_p,
                 "Draw among the likeliest tokens that have this share (default 0.3; 0.2 with --state)")
      ->check(finite_range(0, 1));
  app.add_option("--top-k", options.top_k, "Draw among this many tokens; 0 for any number (default 0)")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--presence", options.presence,
                 "Penalty of tokens that the reply has (default 0.5; 0.3 with --state)")
      ->check(finite_range(-1000, 1000));
  app.add_option("--frequency", options.frequency, "Penalty for each time (default 0.5; 0.3 with --state)")
      ->check(finite_range(-1000, 1000));
  app.add_option("--decay", options.decay, "What is left of a penalty after one token (default 0.996)")
      ->check(finite_range(0, 1));
  app.add_option("--seed", options.seed, "Makes replies repeatable (default: another one each time)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-tokens", options.max_tokens, "Tokens of one reply at most (default 4096)")
      ->check(CLI::Range(1, 1'000'000'000));
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  Options options;
  return run_program(
      argc, argv,
      {"chat",
       "Talks to a model. On a terminal, /help lists the commands. Otherwise every line of standard input is "
       "a\n"
       "message or a command, and the replies go to standard output.",
       "  chat model.rwkv\n"
       "  chat model.pth --strategy 'cpu bf16i8' --temperature 0\n"
       "  chat model.rwkv --state qa.state --prompt 'What is the capital of France?'\n"
       "  chat model.rwkv --prompt - < question.txt"},
      [&](CLI::App& app) { define_options(app, options); }, [&] { run(options); });
}
