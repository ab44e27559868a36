// Talks to a model.
#include <fmt/format.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

#include "apps/common/chat_loop.h"
#include "apps/common/history.h"
#include "apps/common/interrupt.h"
#include "apps/common/model_option.h"
#include "apps/common/named_sessions.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "apps/common/prompt_file.h"
#include "apps/common/terminal.h"
#include "apps/common/word_wrap.h"
#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr const char* demo_source = "guide-2.5m.pth";
constexpr const char* automatic = "auto";

struct Options {
  ModelOptions model;
  std::string form = automatic, think, system, bos;
  std::optional<float> temperature, top_p, presence, frequency, decay;
  std::optional<int> top_k;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 4096;
  std::string state, load, session, prompt;
  bool has_prompt = false, show_prompt = false, timing = false, no_history = false;
  bool list_templates = false, list_sessions = false;
};

// What the conversation goes on from, if anything.
struct Resumed {
  std::optional<Session> session;
  ConversationNotes notes;   // of the session
  std::string session_file;  // to write after each turn
};

ChatSettings settings_of(const Options& options, const PromptTemplate& form) {
  ChatSettings settings;
  SamplerOptions& sampling = settings.sampling;
  sampling = form.sampling;
  if (!options.state.empty()) {  // as API_DEMO_CHAT.py has it for trained states
    sampling.top_p = 0.2f;
    sampling.presence_penalty = sampling.frequency_penalty = 0.3f;
  }
  sampling.temperature = options.temperature.value_or(sampling.temperature);
  sampling.top_p = options.top_p.value_or(sampling.top_p);
  sampling.top_k = options.top_k.value_or(sampling.top_k);
  sampling.presence_penalty = options.presence.value_or(sampling.presence_penalty);
  sampling.frequency_penalty = options.frequency.value_or(sampling.frequency_penalty);
  sampling.penalty_decay = options.decay.value_or(sampling.penalty_decay);
  std::random_device device;
  sampling.seed = options.seed.value_or(uint64_t{device()} << 32 | device());
  if (!options.think.empty()) settings.think = find_think(options.think);
  settings.max_tokens = options.max_tokens;
  settings.timing = options.timing;
  return settings;
}

Session load(const std::string& path, const std::shared_ptr<const Model>& model) {
  std::string note;
  Session session = load_session(path, model, &note);
  if (!note.empty()) write_notice(note + "\n");
  return session;
}

Resumed resume(const Options& options, const std::shared_ptr<const Model>& model) {
  Resumed resumed;
  std::string path = options.load;
  std::error_code ignored;
  if (!options.session.empty()) {
    resumed.session_file = session_path(options.session);
    lock_session(resumed.session_file);
    if (std::filesystem::exists(resumed.session_file, ignored)) path = resumed.session_file;
  }
  if (path.empty()) return resumed;
  resumed.session = load(path, model);
  resumed.notes = read_notes(*resumed.session);
  if (!options.system.empty())
    write_notice("note: --system is for conversations that begin; this one goes on\n");
  if (!options.state.empty())
    write_notice(
        "note: --state is for conversations that begin; this one goes on, and /reset begins with it\n");
  return resumed;
}

PromptTemplate template_of(const Options& options, const ConversationNotes& notes, const Model& model) {
  PromptTemplate form =
      choose_prompt_template(model.file().source(), model.config().version, model.config().n_vocab);
  if (options.form != automatic) {
    form = find_prompt_template(options.form);
  } else if (notes.form == prompt_file_template) {
    form = template_of_names(form, notes.user, notes.bot, notes.message);
  } else if (!notes.form.empty()) {
    form = find_prompt_template(notes.form);
  }
  if (!options.bos.empty()) form.end_of_text_first = options.bos == "on";
  return form;
}

Session begin_from(const std::string& path, const std::shared_ptr<const Model>& model) {
  Session session = load(path, model);
  if (!session.tokens.empty()) {
    write_notice(fmt::format(
        "note: {} holds a conversation: the model knows it, /history and /undo do not; chat --load "
        "goes on with it\n",
        printable(path, path.size())));
  }
  return session;
}

// Where /reset goes back to.
Session start_of(const Options& options, Executor& executor, const Tokenizer& tokenizer,
                 const PromptTemplate& form, bool fresh) {
  if (!options.state.empty()) return begin_from(options.state, executor.shared_model());
  if (options.show_prompt && fresh) write_notice(start_text(form, options.system));
  ProgressLine progress;
  return start_session(executor, tokenizer, form, options.system, [&](int64_t done, int64_t total) {
    progress.show("reading the beginning", static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    return false;
  });
}

void greet(const Model& model, const PromptTemplate& form, const Options& options,
           const Conversation& conversation, bool fresh) {
  const Config& c = model.config();
  std::string text = fmt::format("RWKV-{}, {} layers of width {}, {} tokens; {} on {}; template {}\n",
                                 name_of(c.version), c.n_layer, c.n_embd, c.n_vocab,
                                 to_string(model.strategy()), describe_devices(model), form.name);
  if (model.file().source() == demo_source) {
    text +=
        "This is a demo model of 2.6 million parameters, trained to answer questions about this software.\n"
        "To talk to a real RWKV checkpoint: make chat MODEL=/path/to/model.pth; rwkv-convert makes a file of "
        "it that starts at once.\n";
  }
  text += "/help lists the commands, Ctrl-C ends a reply, Ctrl-D ends the program.\n\n";
  const auto& turns = conversation.turns();
  if (fresh && options.state.empty()) text += start_text(form, options.system);
  if (!turns.empty()) {
    text += fmt::format("After {}; the last (/history shows all):\n\n{}: {}\n\n{}:{}\n\n",
                        counted(static_cast<int64_t>(turns.size()), "message"), form.user,
                        turns.back().message, form.bot, turns.back().reply);
  }
  write_output(wrapped(terminal_text(text), terminal_columns()));
}

// The demo model that `make chat` makes beside the folder of the programs.
std::string demo_model() {
  std::error_code ignored;
  auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  auto demo = program.parent_path().parent_path() / "demo.rwkv";
  if (!std::filesystem::exists(demo, ignored)) throw UsageError("MODEL is required");
  return demo.string();
}

std::string template_table() {
  std::string text = fmt::format("{:18}{:>5}{:>7}{:>10}{:>11}{:>7}\n", "template", "temp", "top_p",
                                 "presence", "frequency", "decay");
  for (const PromptTemplate& form : prompt_templates()) {
    const SamplerOptions& s = form.sampling;
    text += fmt::format("{:18}{:>5}{:>7}{:>10}{:>11}{:>7}  {}\n", form.name, s.temperature, s.top_p,
                        s.presence_penalty, s.frequency_penalty, s.penalty_decay, form.description);
  }
  return text;
}

void talk(ChatLoop& loop, const Options& options, bool dialogue) {
  catch_interrupts(dialogue ? SecondInterrupt::ignored : SecondInterrupt::ends);
  std::string history = options.no_history ? "" : user_path("XDG_STATE_HOME", ".local/state", "chat-history");
  auto lines = dialogue ? make_terminal_reader({wants_colour(), history, ChatLoop::completions()})
                        : make_pipe_reader();
  int64_t failures = loop.run(*lines);
  if (failures > 0 && !dialogue) throw Error(fmt::format("standard input: {} of the lines failed", failures));
}

void run(Options& options) {
  if (options.list_templates) return write_output(template_table());
  if (options.list_sessions) return write_output(list_sessions());
  std::setlocale(LC_CTYPE, "C.UTF-8");  // for the width of characters
  if (options.model.model.empty()) options.model.model = demo_model();
  bool dialogue = !options.has_prompt && is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO);
  std::string prompt = options.prompt == "-" ? read_all_input() : options.prompt;
  if (options.has_prompt && clean_message(prompt).empty()) throw Error("--prompt: the message is empty");

  auto model = open_model(options.model);
  auto tokenizer = open_tokenizer(*model, options.model);
  Executor executor(model, options.model.chunk);
  Resumed resumed = resume(options, model);
  const bool fresh = !resumed.session;
  PromptTemplate form = template_of(options, resumed.notes, *model);
  if (!options.think.empty() && !form.thinks)
    write_notice(fmt::format("note: models of template {} do not think: --think is for g1\n", form.name));
  ChatSettings settings = settings_of(options, form);
  ConversationOptions conversing{form, settings.think, settings.sampling, settings.max_tokens};
  conversing.from_nothing = options.state.empty();
  Conversation conversation(executor, *tokenizer, start_of(options, executor, *tokenizer, form, fresh),
                            std::move(conversing));
  if (!fresh) conversation.resume(std::move(*resumed.session));
  ChatLoop loop(
      conversation, executor, *tokenizer, settings,
      {dialogue ? ReplyStyle::dialogue : ReplyStyle::bare, options.show_prompt, resumed.session_file});
  if (options.has_prompt) return loop.answer(prompt);
  if (dialogue) greet(*model, form, options, conversation, fresh);
  talk(loop, options, dialogue);
}

void define_beginning(CLI::App& app, Options& options) {
  auto* state = app.add_option("--state", options.state,
                               "Trained state to start from, in place of the template's beginning")
                    ->check(not_empty());
  auto* load = app.add_option("--load", options.load,
                              "Conversation to go on with, as /save or the Python package (.pth) wrote it")
                   ->excludes(state)
                   ->check(not_empty());
  app.add_option("--session", options.session,
                 "Go on with the conversation of this name, or begin it; it is saved after each reply")
      ->excludes(load)
      ->check(not_empty());
  app.add_flag("--sessions", options.list_sessions, "List the sessions and exit");
  app.add_option("--prompt", options.prompt, "Answer this and exit; - reads it from standard input")
      ->each([&options](const std::string&) { options.has_prompt = true; });
  app.add_option(
         "--template", options.form,
         "Form of prompt, such as world, g1 or translate:English-Chinese (default: by the model's name)")
      ->check(not_empty());
  app.add_flag("--list-templates", options.list_templates,
               "List them, with their settings of the sampler, and exit");
  app.add_option("--system", options.system, "System text in front of the conversation, for the template g1")
      ->excludes(state);
  app.add_option("--think", options.think,
                 "How models of template g1 think: off, fast, on, short or long (default fast)")
      ->check(CLI::IsMember({"off", "fast", "on", "short", "long"}));
  app.add_option("--bos", options.bos, "Begin with token 0: on or off (default: as the template has it)")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_flag("--show-prompt", options.show_prompt, "Show what the model is fed, on standard error");
}

void define_sampling(CLI::App& app, Options& options) {
  const std::string default_of_template = " (default: the template's)";
  app.add_option("--temperature", options.temperature, "0 draws the likeliest token" + default_of_template)
      ->check(finite_range(0, max_temperature));
  app.add_option(
         "--top-p", options.top_p,
         "Draw among the likeliest tokens that have this share (default: the template's; 0.2 with --state)")
      ->check(finite_range(0, 1));
  app.add_option("--top-k", options.top_k, "Draw among this many tokens; 0 for any number (default 0)")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--presence", options.presence,
                 "Penalty of tokens that the reply has (default: the template's; 0.3 with --state)")
      ->check(finite_range(-1000, 1000));
  app.add_option("--frequency", options.frequency,
                 "Penalty for each time (default: the template's; 0.3 with --state)")
      ->check(finite_range(-1000, 1000));
  app.add_option("--decay", options.decay, "What is left of a penalty after one token" + default_of_template)
      ->check(finite_range(0, 1));
  app.add_option("--seed", options.seed, "Makes replies repeatable (default: another one each time)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-tokens", options.max_tokens, "Tokens of one reply at most (default 4096)")
      ->check(CLI::Range(1, 1'000'000'000));
  app.add_flag("--timing", options.timing, "After each reply: tokens per second, time to the first text");
  app.add_flag("--no-history", options.no_history, "Don't keep the lines typed for the next time");
}

void define_options(CLI::App& app, Options& options) {
  add_model_options(app, options.model, true);
  app.get_option("MODEL")->required(false);
  define_beginning(app, options);
  define_sampling(app, options);
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
       "  chat model.rwkv --session holidays\n"
       "  chat model.rwkv --state qa.state --prompt 'What is the capital of France?'\n"
       "  chat rwkv7-g1.rwkv --think on --system 'You answer in one sentence.'\n"
       "  chat model.rwkv --template translate:English-Chinese --prompt - < text.txt"},
      [&](CLI::App& app) { define_options(app, options); }, [&] { run(options); });
}
