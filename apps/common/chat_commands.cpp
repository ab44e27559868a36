// The commands that begin with a slash.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "apps/common/chat_loop.h"
#include "apps/common/history.h"
#include "apps/common/progress.h"
#include "apps/common/terminal.h"
#include "apps/common/word_wrap.h"
#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr int columns_of_help = 100;  // where there is no terminal

constexpr std::string_view other_help =
    "All other lines are messages. One that ends in a backslash goes on in the next line; pasted text keeps "
    "its line breaks, and Ctrl-V Enter types one. Ctrl-C ends a reply, or clears what was typed. -temp=1.2 "
    "and -top_p=0.5 in a message hold for its reply. These commands are known from ChatRWKV; but for the "
    "first three they leave the conversation as it is:\n";

std::string rate(int64_t tokens, double seconds) {
  return seconds > 0 ? fmt::format("{:.1f} tok/s", static_cast<double>(tokens) / seconds) : "no time";
}

// A number from 1 to `most` at the beginning of the text, which loses it and the blanks behind it; 0 when
// there is none.
size_t take_number(std::string_view& text, size_t most) {
  size_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  auto length = static_cast<size_t>(end - text.data());
  bool word = length == text.size() || text[length] == ' ';
  if (error != std::errc() || !word || value < 1 || value > most) return 0;
  text.remove_prefix(std::min(text.find_first_not_of(' ', length), text.size()));
  return value;
}

}  // namespace

std::span<const ChatLoop::Command> ChatLoop::commands() {
  static constexpr std::array<Command, 16> table = {{
      {"/retry", "", "another reply to the last message", &ChatLoop::retry},
      {"/undo", "[N]", "take back the last message and its reply, or the last N", &ChatLoop::undo},
      {"/edit", "N TEXT", "say TEXT in place of message N: the conversation goes on from there",
       &ChatLoop::edit},
      {"/history", "", "the conversation so far, its messages numbered", &ChatLoop::list_history},
      {"/branch", "NAME", "start another branch of the conversation here", &ChatLoop::start_branch},
      {"/switch", "NAME", "go on with another branch", &ChatLoop::switch_branch},
      {"/branches", "", "all branches; the first one is called main", &ChatLoop::list_branches},
      {"/set", "[NAME VALUE]", "change a setting, such as /set temperature 0.8; alone: show all",
       &ChatLoop::set},
      {"/reset", "", "back to the start", &ChatLoop::reset},
      {"/save", "FILE", "write the conversation to a file", &ChatLoop::save},
      {"/load", "FILE", "go on with a conversation from a file", &ChatLoop::load},
      {"/stats", "", "tokens, speed, size of the state", &ChatLoop::show_stats},
      {"/help", "", "this list", &ChatLoop::help},
      {"/exit", "", "the end, as Ctrl-D", &ChatLoop::exit},
      {"/regenerate", "", "", &ChatLoop::retry},
      {"/quit", "", "", &ChatLoop::exit},
  }};
  return table;
}

std::vector<std::string> ChatLoop::completions() {
  std::vector<std::string> beginnings;
  for (const auto table : {commands(), plus_commands()}) {
    for (const Command& c : table) {
      if (!c.what.empty()) beginnings.push_back(fmt::format("{}{}", c.name, c.argument.empty() ? "" : " "));
    }
  }
  for (std::string_view name : setting_names()) beginnings.push_back(fmt::format("/set {} ", name));
  return beginnings;
}

// What begins with a slash is never a message.
void ChatLoop::slash_command(const std::string& line) {
  size_t end = std::min(line.find_first_of(" \t\n"), line.size());
  std::string_view name = std::string_view(line).substr(0, end);
  std::string argument = clean_message(line.substr(end));
  auto table = commands();
  auto found = std::ranges::find_if(table, [&](const Command& c) { return c.name == name; });
  if (found == table.end())
    throw Error(fmt::format("unknown command '{}': {}", printable(name),
                            is_setting(name.substr(1))
                                ? fmt::format("a setting is changed by /set {}", line.substr(1))
                                : "/help lists the commands"));
  if (found->argument.empty() && !argument.empty())
    throw Error(fmt::format("{} takes nothing after it", name));
  bool needed = !found->argument.empty() && !found->argument.starts_with('[');
  if (needed && argument.empty()) {
    std::string_view what = found->argument == "FILE"   ? "a file name"
                            : found->argument == "NAME" ? "a name"
                                                        : "more";
    throw Error(fmt::format("{0} needs {1}: {0} {2}", name, what, found->argument));
  }
  (this->*found->run)(argument);
}

// NOLINTNEXTLINE(readability-convert-member-functions-to-static): a command like the others
void ChatLoop::help(const std::string&) {
  std::string text = "Commands:\n";
  for (const Command& c : commands()) {
    if (!c.what.empty()) text += fmt::format("  {:22}{}\n", fmt::format("{} {}", c.name, c.argument), c.what);
  }
  text += other_help;
  for (const Command& c : plus_commands()) {
    text += fmt::format("  {:22}{}\n", fmt::format("{} {}", c.name, c.argument), c.what);
  }
  const int columns = terminal_columns();
  write_output(wrapped(text, columns > 0 ? columns : columns_of_help));
}

void ChatLoop::exit(const std::string&) { leaving_ = true; }

void ChatLoop::retry(const std::string&) {
  auto start = Clock::now();
  if (conversation_->turns().empty()) throw Error("there is no reply to draw again: write a message first");
  if (read_on([&](const Reading& reading) { return conversation_->undo_reply(reading) ? 1 : 0; }))
    reply(start);
}

void ChatLoop::undo(const std::string& count) {
  size_t turns = conversation_->turns().size();
  if (turns == 0) throw Error("there is no message to take back");
  std::string_view rest = count;
  size_t number = count.empty() ? 1 : take_number(rest, turns);
  if (number == 0 || !rest.empty()) {
    throw Error(
        fmt::format("/undo takes a number of messages from 1 to {}, not '{}'", turns, printable(count)));
  }
  if (!read_on(
          [&](const Reading& reading) { return conversation_->go_back_to(turns - number, reading) ? 1 : 0; }))
    return;
  save_turn();
  notice(number == 1 ? "The last message was taken back."
                     : fmt::format("The last {} messages were taken back.", number));
}

void ChatLoop::edit(const std::string& number_and_text) {
  size_t turns = conversation_->turns().size();
  if (turns == 0) throw Error("there is no message to edit");
  std::string_view text = number_and_text;
  size_t number = take_number(text, turns);
  if (number == 0 || text.empty()) {
    throw Error(fmt::format(
        "/edit needs the number of a message, from 1 to {}, and the new text: /edit {} TEXT", turns, turns));
  }
  auto start = Clock::now();
  if (read_on([&](const Reading& reading) { return conversation_->edit(number - 1, text, reading); })) {
    reply(start);
  } else {
    notice("\nThe conversation is as it was before.");
  }
}

void ChatLoop::list_history(const std::string&) {
  const PromptTemplate& form = conversation_->options().form;
  std::string text;
  size_t number = 0;
  for (const Turn& turn : conversation_->turns()) {
    text += fmt::format("{}. {}: {}\n", ++number, form.user, turn.message);
    text += form.bot.empty() ? turn.reply + "\n"
                             : fmt::format("   {}: {}\n", form.bot, clean_message(turn.reply));
  }
  if (text.empty()) notice("Nothing was said yet.");
  write_output(wrapped(terminal_text(text), terminal_columns()));
}

void ChatLoop::start_branch(const std::string& name) {
  conversation_->start_branch(name);
  notice(fmt::format("This is branch '{}' now; /switch NAME goes back to another.", printable(name)));
}

void ChatLoop::switch_branch(const std::string& name) {
  if (!read_on([&](const Reading& reading) { return conversation_->switch_to(name, reading) ? 1 : 0; }))
    return;
  save_turn();
  notice(fmt::format("Branch '{}', after {}.", printable(name),
                     counted(static_cast<int64_t>(conversation_->turns().size()), "message")));
}

void ChatLoop::list_branches(const std::string&) {
  std::string text;
  for (const std::string& name : conversation_->branches()) {
    text += fmt::format("{} {}\n", name == conversation_->branch() ? "*" : " ", name);
  }
  write_output(terminal_text(text));
}

void ChatLoop::set(const std::string& name_and_value) {
  if (name_and_value.empty()) {
    write_output(list_settings(settings_));
    return;
  }
  size_t end = std::min(name_and_value.find(' '), name_and_value.size());
  change_setting(settings_, name_and_value.substr(0, end), clean_message(name_and_value.substr(end)));
}

void ChatLoop::reset(const std::string&) {
  conversation_->restart();
  save_turn();
  notice("Back to the start.");
}

void ChatLoop::save(const std::string& file) {
  const std::string path = in_home(file);
  conversation_->save(path);
  notice(fmt::format("Saved to {}.", printable(path, path.size())));
}

void ChatLoop::load(const std::string& file) {
  const std::string path = in_home(file);
  std::string note;
  Session session = load_session(path, executor_->shared_model(), &note);
  const std::string &held = read_notes(session).form, &form = conversation_->options().form.name;
  if (!held.empty() && held != form) {
    throw Error(
        fmt::format("{}: a conversation in the template '{}', this one is in '{}': start with chat --load",
                    path, printable(held), form));
  }
  conversation_->resume(std::move(session));
  if (!note.empty()) write_notice(note + "\n");
  save_turn();
  notice(fmt::format("Loaded a conversation of {}.",
                     counted(static_cast<int64_t>(conversation_->session().tokens.size()), "token")));
}

void ChatLoop::show_stats(const std::string&) {
  const Session& session = conversation_->session();
  std::string text = fmt::format("conversation: {}, a state of {}\n",
                                 counted(static_cast<int64_t>(session.tokens.size()), "token"),
                                 human_bytes(session.state.bytes()));
  if (last_.message_tokens > 0) {
    text += fmt::format("last message: {}, read at {}\n", counted(last_.message_tokens, "token"),
                        rate(last_.message_tokens, last_.reading_seconds));
  }
  if (last_.reply_tokens > 0) {
    text += fmt::format("last reply: {}, drawn at {}, the first text after {:.2f} s\n",
                        counted(last_.reply_tokens, "token"), rate(last_.reply_tokens, last_.reply_seconds),
                        last_.first_text_seconds);
  }
  write_output(text);
}

}  // namespace rwkv::apps
