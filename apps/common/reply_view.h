// A reply on its way to standard output.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "apps/common/word_wrap.h"
#include "model/text/think.h"

namespace rwkv::apps {

/// How replies are written.
enum class ReplyStyle {
  dialogue,  ///< on a terminal: after the name of who speaks, wrapped at words, thinking dimmed
  bare,      ///< the text alone, without the thinking
};

class ReplyView {
 public:
  /// Writes `speaker`, followed by a colon unless it is empty, for a dialogue. With `trim`, bare replies lose
  /// the blanks in front.
  ReplyView(ReplyStyle style, bool colour, const std::string& speaker, bool trim);

  /// Throws OutputError, as finish() does.
  void show(std::string_view text, ReplyPart part = ReplyPart::answer);
  /// What was held back, and the end of the line.
  void finish();

 private:
  void write(std::string_view text);
  void change_to(ReplyPart part);

  ReplyStyle style_;
  bool colour_, safe_, labelled_, trim_;
  bool at_start_ = true;  // of the answer
  bool thought_ = false;
  ReplyPart part_ = ReplyPart::answer;
  WordWrap wrap_;
};

}  // namespace rwkv::apps
