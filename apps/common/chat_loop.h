// The conversation on a terminal or in a script: messages, commands, replies, Ctrl-C.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "apps/common/line_reader.h"
#include "model/text/conversation.h"

namespace rwkv::apps {

constexpr const char* nothing_said = "!!! Error: please say something !!!";

/// How replies are written.
enum class ReplyStyle {
  dialogue,  ///< on a terminal: after "Assistant:", an empty line before and after
  bare,      ///< the text alone on its lines, without blanks in front
};

/// What /stats tells of the last turn.
struct TurnStats {
  int64_t message_tokens = 0, reply_tokens = 0;
  double reading_seconds = 0, reply_seconds = 0;
  double first_text_seconds = 0;  ///< from the message to the first text of the reply
};

class ChatLoop {
 public:
  /// The conversation must outlive the loop.
  ChatLoop(Conversation& conversation, std::shared_ptr<const Model> model, ReplyStyle style);

  /// One message, which should be clean, and its reply on standard output. Throws Error.
  void answer(const std::string& message);

  /// Lines until the end or /exit. Errors are shown, and the next line is read. Returns their number.
  int64_t run(LineReader& lines);

 private:
  bool handle(const std::string& line);
  bool command(std::string_view name, const std::string& argument);
  void load(const std::string& path);
  void regenerate();
  void reply(std::chrono::steady_clock::time_point start);
  void show(std::string_view text);
  void show_stats() const;
  void notice(std::string_view text) const;
  void complain(std::string_view text);

  Conversation* conversation_;
  std::shared_ptr<const Model> model_;
  ReplyStyle style_;
  bool colour_, safe_;
  bool at_start_ = true;  // of a reply: blanks are still left out
  int64_t failures_ = 0;
  TurnStats last_;
};

}  // namespace rwkv::apps
