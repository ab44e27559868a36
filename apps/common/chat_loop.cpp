#include "apps/common/chat_loop.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "apps/common/interrupt.h"
#include "apps/common/progress.h"
#include "apps/common/terminal.h"
#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* help =
    "A line is a message. Lines that begin with / are commands:\n"
    "  /regenerate   another reply to the last message\n"
    "  /reset        back to the start\n"
    "  /save FILE    write the conversation to a file\n"
    "  /load FILE    go on with a conversation from a file\n"
    "  /stats        tokens, speed, size of the state\n"
    "  /help         this list\n"
    "  /exit         the end, as Ctrl-D\n"
    "Ctrl-C ends a reply, or clears what was typed. Ctrl-V Enter puts a line break into a message.\n";

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string rate(int64_t tokens, double seconds) {
  return seconds > 0 ? fmt::format("{:.1f} tok/s", static_cast<double>(tokens) / seconds) : "no time";
}

}  // namespace

ChatLoop::ChatLoop(Conversation& conversation, std::shared_ptr<const Model> model, ReplyStyle style)
    : conversation_(&conversation),
      model_(std::move(model)),
      style_(style),
      colour_(wants_colour()),
      safe_(is_terminal(STDOUT_FILENO)) {}

int64_t ChatLoop::run(LineReader& lines) {
  std::string line;
  bool more = true;
  while (more) {
    switch (lines.read(line)) {
      case Input::line:
        more = handle(line);
        if (more && style_ == ReplyStyle::dialogue) write_output("\n");
        break;
      case Input::too_long:
        complain(
            fmt::format("a line has more than {} bytes, the most that one message can have", max_line_bytes));
        break;
      case Input::interrupted:
        if (style_ == ReplyStyle::bare) end_by_interrupt();  // nobody types here
        write_output("\n");
        break;
      case Input::end:
        more = false;
        if (style_ == ReplyStyle::dialogue) write_output("\n");
        break;
    }
    clear_interrupt();
  }
  return failures_;
}

// False for /exit.
bool ChatLoop::handle(const std::string& line) {
  try {
    std::string message = clean_message(line);
    if (message.starts_with('/')) {
      size_t end = std::min(message.find_first_of(" \t"), message.size());
      return command(std::string_view(message).substr(0, end), clean_message(message.substr(end)));
    }
    if (message.empty()) {
      write_notice(std::string(nothing_said) + "\n");
    } else {
      answer(message);
    }
  } catch (const OutputError&) {
    throw;
  } catch (const Error& e) {
    complain(e.what());
  }
  return true;
}

bool ChatLoop::command(std::string_view name, const std::string& argument) {
  bool wants_file = name == "/save" || name == "/load";
  bool known = wants_file || name == "/regenerate" || name == "/reset" || name == "/stats" ||
               name == "/help" || name == "/exit";
  if (!known) throw Error(fmt::format("unknown command '{}': /help lists the commands", printable(name)));
  if (wants_file && argument.empty()) throw Error(fmt::format("{0} needs a file name: {0} FILE", name));
  if (!wants_file && !argument.empty()) throw Error(fmt::format("{} takes nothing after it", name));
  if (name == "/exit") return false;
  if (name == "/help") write_output(help);
  if (name == "/stats") show_stats();
  if (name == "/regenerate") regenerate();
  if (name == "/save") {
    save_session(argument, conversation_->session());
    notice(fmt::format("Saved to {}.", printable(argument, argument.size())));
  }
  if (name == "/load") load(argument);
  if (name == "/reset") {
    conversation_->restart();
    notice("Back to the start.");
  }
  return true;
}

void ChatLoop::load(const std::string& path) {
  std::string note;
  conversation_->resume(load_session(path, model_, &note));
  if (!note.empty()) write_notice(note + "\n");
  notice(fmt::format("Loaded a conversation of {} tokens.", conversation_->session().tokens.size()));
}

void ChatLoop::answer(const std::string& message) {
  auto start = Clock::now();
  ProgressLine progress;
  int64_t tokens = conversation_->read(message, [&](int64_t done, int64_t total) {
    progress.show("reading", static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    return interrupted();
  });
  progress.clear();
  if (tokens == 0) {
    notice("\nThe message was taken back.");
    return;
  }
  last_.message_tokens = tokens;
  last_.reading_seconds = seconds_since(start);
  reply(start);
}

void ChatLoop::regenerate() {
  auto start = Clock::now();
  if (!conversation_->undo_reply()) throw Error("there is no reply to draw again: write a message first");
  reply(start);
}

void ChatLoop::reply(Clock::time_point start) {
  if (style_ == ReplyStyle::dialogue) write_output(colour_ ? "\n\x1b[1mAssistant:\x1b[0m" : "\nAssistant:");
  at_start_ = true;
  last_.first_text_seconds = 0;
  auto reply_start = Clock::now();
  auto show_timed = [&](std::string_view text) {
    if (last_.first_text_seconds == 0) last_.first_text_seconds = seconds_since(start);
    show(text);
  };
  Reply reply;
  try {
    reply = conversation_->reply(show_timed, interrupted);
  } catch (const OutputError&) {
    throw;
  } catch (const std::exception&) {
    write_output("\n");
    throw;
  }
  last_.reply_tokens = reply.tokens;
  last_.reply_seconds = seconds_since(reply_start);
  write_output("\n");
  if (reply.end == ReplyEnd::limit) {
    write_notice(fmt::format("(ended after {} tokens: --max-tokens)\n", reply.tokens));
  }
}

void ChatLoop::show(std::string_view text) {
  if (style_ == ReplyStyle::bare && at_start_) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
    at_start_ = text.empty();
  }
  write_output(safe_ ? terminal_text(text) : std::string(text));
}

void ChatLoop::show_stats() const {
  const Session& session = conversation_->session();
  std::string text = fmt::format("conversation: {} tokens, a state of {}\n", session.tokens.size(),
                                 human_bytes(session.state.bytes()));
  if (last_.message_tokens > 0) {
    text += fmt::format("last message: {} tokens, read at {}\n", last_.message_tokens,
                        rate(last_.message_tokens, last_.reading_seconds));
  }
  if (last_.reply_tokens > 0) {
    text +=
        fmt::format("last reply: {} tokens, drawn at {}, the first text after {:.2f} s\n", last_.reply_tokens,
                    rate(last_.reply_tokens, last_.reply_seconds), last_.first_text_seconds);
  }
  write_output(text);
}

// For people only: a script wants answers.
void ChatLoop::notice(std::string_view text) const {
  if (style_ == ReplyStyle::dialogue) write_output(fmt::format("{}\n", text));
}

void ChatLoop::complain(std::string_view text) {
  failures_++;
  write_notice(fmt::format("error: {}\n", text));
}

}  // namespace rwkv::apps
