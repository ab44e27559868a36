// The commands of ChatRWKV's v2/chat.py, which begin with a plus.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "apps/common/chat_loop.h"
#include "apps/common/interrupt.h"
#include "apps/common/progress.h"
#include "apps/common/prompt_file.h"
#include "apps/common/replaced.h"
#include "apps/common/terminal.h"
#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// A backslash and an n are a line break in these commands.
std::string with_line_breaks(const std::string& text) { return replaced(text, "\\n", "\n"); }

}  // namespace

std::span<const ChatLoop::Command> ChatLoop::plus_commands() {
  static constexpr std::array<Command, 9> table = {{
      {"+", "", "as /retry", &ChatLoop::retry},
      {"+reset", "", "as /reset", &ChatLoop::reset},
      {"+prompt", "FILE", "begin anew with a prompt file (user, bot, interface, init_prompt)",
       &ChatLoop::begin_prompt},
      {"+gen", "TEXT", "go on with a text", &ChatLoop::generate},
      {"+i", "TEXT", "carry out an instruction", &ChatLoop::instruct},
      {"+qq", "TEXT", "answer a question, without anything before it", &ChatLoop::ask_afresh},
      {"+qa", "TEXT", "answer a question, as at the start of the chat", &ChatLoop::ask_at_start},
      {"++", "", "the last of these four again", &ChatLoop::generate_again},
      {"+++", "", "go on with it", &ChatLoop::generate_more},
  }};
  return table;
}

// False for a message that only begins like one.
bool ChatLoop::plus_command(const std::string& line) {
  size_t end = std::min(line.find_first_of(" \t\n"), line.size());
  std::string name = lower(std::string_view(line).substr(0, end));
  std::string argument = clean_message(line.substr(end));
  auto table = plus_commands();
  auto found = std::ranges::find_if(table, [&](const Command& c) { return c.name == name; });
  if (found == table.end() || (found->argument.empty() && !argument.empty())) return false;
  if (!found->argument.empty() && argument.empty())
    throw Error(fmt::format("{0} needs more: {0} {1}", name, found->argument));
  (this->*found->run)(name == "+prompt" ? argument : with_line_breaks(argument));
  return true;
}

void ChatLoop::begin_prompt(const std::string& path) {
  PromptTemplate form = read_prompt_file(path, conversation_->options().form);
  ProgressLine progress;
  Session start = start_session(*executor_, *tokenizer_, form, "", [&](int64_t done, int64_t total) {
    progress.show("reading the prompt", static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    return interrupted();
  });
  if (interrupted()) return;
  conversation_->begin(std::move(start), std::move(form));
  save_turn();
  notice("The conversation begins anew.");
}

void ChatLoop::generate(const std::string& text) {
  begin_free_text({State(executor_->shared_model()), {}, {}}, "\n" + text, {});
}

void ChatLoop::instruct(const std::string& text) {
  std::string prompt =
      "\nBelow is an instruction that describes a task. Write a response that appropriately completes the "
      "request.\n\n# Instruction:\n" +
      text + "\n\n# Response:\n";
  begin_free_text({State(executor_->shared_model()), {}, {}}, prompt, {});
}

void ChatLoop::ask_afresh(const std::string& text) {
  begin_free_text({State(executor_->shared_model()), {}, {}}, "\nQ: " + text + "\nA:", {});
}

void ChatLoop::ask_at_start(const std::string& text) {
  const PromptTemplate& form = conversation_->options().form;
  begin_free_text(conversation_->start(), message_text(form, clean_message(text)), {std::string(turn_end)});
}

void ChatLoop::begin_free_text(const Session& from, const std::string& text,
                               std::vector<std::string> stop_texts) {
  if (options_.show_prompt) write_notice(terminal_text(text) + "\n");
  show_free_text([&](const ShowText& show) {
    return free_text_.begin(from, text, std::move(stop_texts), now_.sampling, show, interrupted);
  });
}

void ChatLoop::generate_again(const std::string&) {
  show_free_text([&](const ShowText& show) { return free_text_.again(now_.sampling, show, interrupted); });
}

void ChatLoop::generate_more(const std::string&) {
  show_free_text([&](const ShowText& show) { return free_text_.more(now_.sampling, show, interrupted); });
}

void ChatLoop::show_free_text(const std::function<Reply(const ShowText&)>& generate) {
  std::optional<ReplyView> view;  // begun when there is something to show: errors come alone
  generate([&](std::string_view text) {
    if (!view) view.emplace(options_.style, colour_, "", true);
    view->show(text);
  });
  if (view) view->finish();
}

}  // namespace rwkv::apps
