#include "apps/common/chat_loop.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "apps/common/interrupt.h"
#include "apps/common/progress.h"
#include "apps/common/terminal.h"
#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr const char* continued_prompt = "...";

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

ChatLoop::ChatLoop(Conversation& conversation, Executor& executor, const Tokenizer& tokenizer,
                   ChatSettings settings, ChatOptions options)
    : conversation_(&conversation),
      executor_(&executor),
      tokenizer_(&tokenizer),
      settings_(std::move(settings)),
      options_(std::move(options)),
      free_text_(executor, tokenizer),
      colour_(wants_colour()) {
  use(settings_);
}

int64_t ChatLoop::run(LineReader& lines) {
  std::string message;
  bool dialogue = options_.style == ReplyStyle::dialogue;
  for (bool more = true; more && !leaving_;) {
    switch (read_message(lines, message)) {
      case Input::line:
        handle(message);
        if (!leaving_ && dialogue) write_output("\n");
        break;
      case Input::too_long:
        complain(
            fmt::format("a line has more than {} bytes, the most that one message can have", max_line_bytes));
        break;
      case Input::interrupted:
        if (!dialogue) end_by_interrupt();  // nobody types here
        write_output("\n");
        break;
      case Input::end:
        more = false;
        if (dialogue) write_output("\n");
        break;
    }
    clear_interrupt();
  }
  return failures_;
}

// A line that ends in a backslash goes on in the next one. Scripts have other ways.
Input ChatLoop::read_message(LineReader& lines, std::string& message) {
  Input input = lines.read(message, prompt());
  bool typed = options_.style == ReplyStyle::dialogue;
  while (typed && input == Input::line && message.ends_with('\\')) {
    message.back() = '\n';
    std::string next;
    input = lines.read(next, continued_prompt);
    if (input == Input::end) return Input::line;
    message += next;
    if (message.size() > max_line_bytes) return Input::too_long;
  }
  return input;
}

std::string ChatLoop::prompt() const {
  const std::string& branch = conversation_->branch();
  std::string where = branch == main_branch ? "" : fmt::format(" [{}]", branch);
  return terminal_text(conversation_->options().form.user + where) + ":";
}

void ChatLoop::handle(const std::string& line) {
  try {
    use(settings_);
    if (line.starts_with('/')) return slash_command(clean_message(line));
    std::string message = as_message(line);
    bool plus = line.starts_with('+');
    if (plus || conversation_->options().form.clean) {
      auto [text, settings] = settings_in_message(plus ? clean_message(line) : message, settings_);
      message = text;
      use(settings);
    }
    if (plus && plus_command(message)) return;
    if (message.empty()) {
      write_notice("note: an empty line is no message\n");
    } else {
      say(message);
    }
  } catch (const OutputError&) {
    throw;
  } catch (const Error& e) {
    complain(e.what());
  }
}

// As the template wants it: a plain text keeps its blanks and empty lines.
std::string ChatLoop::as_message(const std::string& line) const {
  return conversation_->options().form.clean ? clean_message(line) : line;
}

void ChatLoop::use(const ChatSettings& settings) {
  now_ = settings;
  conversation_->set(settings.sampling, settings.think, settings.max_tokens);
}

void ChatLoop::answer(const std::string& message) {
  if (!say(as_message(message)))
    throw Error("the model did not come to an answer within its thinking: raise --max-tokens");
}

// False when there is no reply.
bool ChatLoop::say(const std::string& message) {
  auto start = Clock::now();
  if (options_.show_prompt) write_notice(terminal_text(conversation_->prompt_of(message)) + "\n");
  bool read = read_on([&](const Reading& reading) { return conversation_->read(message, reading); });
  if (!read) notice("\nThe message was taken back.");
  return read && reply(start);
}

// Work that reads tokens, with progress. False when it was interrupted.
bool ChatLoop::read_on(const std::function<int64_t(const Reading&)>& work) {
  auto start = Clock::now();
  ProgressLine progress;
  int64_t tokens = work([&](int64_t done, int64_t total) {
    progress.show("reading", static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    return interrupted();
  });
  progress.clear();
  if (tokens == 0) return false;
  last_.message_tokens = tokens;
  last_.reading_seconds = seconds_between(start, Clock::now());
  return true;
}

bool ChatLoop::reply(Clock::time_point start) {
  const PromptTemplate& form = conversation_->options().form;
  ReplyView view(options_.style, colour_, form.bot, form.clean);
  last_.first_text_seconds = 0;
  auto reply_start = Clock::now();
  auto show_timed = [&](std::string_view text, ReplyPart part) {
    if (last_.first_text_seconds == 0) last_.first_text_seconds = seconds_between(start, Clock::now());
    view.show(text, part);
  };
  TurnReply reply;
  try {
    reply = conversation_->reply(show_timed, interrupted);
  } catch (const OutputError&) {
    throw;
  } catch (const std::exception&) {
    view.finish();
    throw;
  }
  last_.reply_tokens = reply.tokens;
  last_.reply_seconds = seconds_between(reply_start, Clock::now());
  view.finish();
  if (reply.end == ReplyEnd::limit) {
    write_notice(fmt::format("(ended after {}: max_tokens)\n", counted(reply.tokens, "token")));
  }
  if (reply.taken_back) write_notice("(there is no answer: the conversation is as it was before)\n");
  if (settings_.timing) show_timing();
  save_turn();
  return !reply.taken_back;
}

void ChatLoop::save_turn() const {
  if (!options_.session.empty()) conversation_->save(options_.session);
}

void ChatLoop::show_timing() const {
  double seconds = last_.reply_seconds > 0 ? last_.reply_seconds : 1e-9;
  std::string text =
      fmt::format("[{}, {:.1f} tok/s, the first after {:.2f} s]", counted(last_.reply_tokens, "token"),
                  static_cast<double>(last_.reply_tokens) / seconds, last_.first_text_seconds);
  bool dim = is_terminal(STDERR_FILENO) && colour_;
  write_notice((dim ? "\x1b[2m" + text + "\x1b[0m" : text) + "\n");
}

// For people only: a script wants answers.
void ChatLoop::notice(std::string_view text) const {
  if (options_.style == ReplyStyle::dialogue) write_output(fmt::format("{}\n", text));
}

void ChatLoop::complain(std::string_view text) {
  failures_++;
  write_notice(fmt::format("error: {}\n", text));
}

}  // namespace rwkv::apps
