// The conversation on a terminal or in a script: messages, commands, replies, Ctrl-C.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "apps/common/chat_settings.h"
#include "apps/common/line_reader.h"
#include "apps/common/reply_view.h"
#include "model/text/conversation.h"
#include "model/text/free_text.h"

namespace rwkv::apps {

struct ChatOptions {
  ReplyStyle style = ReplyStyle::bare;
  bool show_prompt = false;  ///< what the model is fed, on standard error
  std::string session = {};  ///< state file to write after each turn; "": none
};

/// What /stats tells of the last turn.
struct TurnStats {
  int64_t message_tokens = 0, reply_tokens = 0;
  double reading_seconds = 0, reply_seconds = 0;
  double first_text_seconds = 0;  ///< from the message to the first text of the reply
};

class ChatLoop {
 public:
  /// All of them must outlive the loop.
  ChatLoop(Conversation& conversation, Executor& executor, const Tokenizer& tokenizer, ChatSettings settings,
           ChatOptions options);

  /// One message and its reply on standard output. Throws Error.
  void answer(const std::string& message);

  /// Lines until the end or /exit. Errors are shown, and the next line is read. Returns their number.
  int64_t run(LineReader& lines);

  /// The commands, as the beginnings of lines, for LineReader.
  static std::vector<std::string> completions();

 private:
  using Clock = std::chrono::steady_clock;

  struct Command {
    std::string_view name, argument, what;  // an argument in brackets may be left out
    void (ChatLoop::*run)(const std::string& argument);
  };
  static std::span<const Command> commands();
  static std::span<const Command> plus_commands();

  // chat_loop.cpp
  Input read_message(LineReader& lines, std::string& message);
  void handle(const std::string& line);
  bool say(const std::string& message);
  bool reply(Clock::time_point start);
  bool read_on(const std::function<int64_t(const Reading&)>& work);
  [[nodiscard]] std::string as_message(const std::string& line) const;
  void use(const ChatSettings& settings);
  void save_turn() const;
  void show_timing() const;
  [[nodiscard]] std::string prompt() const;
  void notice(std::string_view text) const;
  void complain(std::string_view text);

  // chat_commands.cpp
  void slash_command(const std::string& line);
  void retry(const std::string&);
  void undo(const std::string& count);
  void edit(const std::string& number_and_text);
  void list_history(const std::string&);
  void start_branch(const std::string& name);
  void switch_branch(const std::string& name);
  void list_branches(const std::string&);
  void set(const std::string& name_and_value);
  void reset(const std::string&);
  void save(const std::string& file);
  void load(const std::string& file);
  void show_stats(const std::string&);
  void help(const std::string&);
  void exit(const std::string&);

  // plus_commands.cpp
  bool plus_command(const std::string& line);
  void begin_prompt(const std::string& path);
  void generate(const std::string& text);
  void instruct(const std::string& text);
  void ask_afresh(const std::string& text);
  void ask_at_start(const std::string& text);
  void generate_again(const std::string&);
  void generate_more(const std::string&);
  void begin_free_text(const Session& from, const std::string& text, std::vector<std::string> stop_texts);
  void show_free_text(const std::function<Reply(const ShowText&)>& generate);

  Conversation* conversation_;
  Executor* executor_;
  const Tokenizer* tokenizer_;
  ChatSettings settings_, now_;  // now_: for this line
  ChatOptions options_;
  FreeText free_text_;
  bool colour_;
  bool leaving_ = false;
  int64_t failures_ = 0;
  TurnStats last_;
};

}  // namespace rwkv::apps
