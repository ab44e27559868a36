#include "apps/common/reply_view.h"

#include <unistd.h>

#include <algorithm>

#include "apps/common/terminal.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr std::string_view bold = "\x1b[1m", dim = "\x1b[2m", plain = "\x1b[0m";

int label_columns(const std::string& speaker) { return speaker.empty() ? 0 : columns_of(speaker) + 1; }

}  // namespace

ReplyView::ReplyView(ReplyStyle style, bool colour, const std::string& speaker, bool trim)
    : style_(style),
      colour_(colour),
      safe_(is_terminal(STDOUT_FILENO)),
      labelled_(!speaker.empty()),
      trim_(trim),
      wrap_(style == ReplyStyle::dialogue ? terminal_columns() : 0, label_columns(speaker)) {
  if (style_ == ReplyStyle::bare) return;
  std::string label = speaker.empty() ? "" : terminal_text(speaker) + ":";
  if (colour_ && !label.empty()) label = std::string(bold) + label + std::string(plain);
  write_output("\n" + label);
}

void ReplyView::show(std::string_view text, ReplyPart part) {
  bool hidden = part == ReplyPart::thinking && style_ == ReplyStyle::bare;
  if (hidden) return;
  if (part != part_) change_to(part);
  if (part == ReplyPart::answer && at_start_) {
    if (trim_ && style_ == ReplyStyle::bare) {
      text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
    }
    if (text.empty()) return;
    at_start_ = false;
    if (style_ == ReplyStyle::dialogue && labelled_ && !thought_ && text.front() != ' ' &&
        text.front() != '\n')
      write(" ");
  }
  write(text);
}

void ReplyView::change_to(ReplyPart part) {
  if (style_ == ReplyStyle::dialogue) {
    if (part == ReplyPart::answer) write("\n\n");
    write_output(wrap_.flush());
    if (colour_) write_output(part == ReplyPart::thinking ? dim : plain);
    if (part == ReplyPart::thinking) write(" ");
  }
  part_ = part;
  thought_ = true;
}

void ReplyView::write(std::string_view text) {
  std::string shown = safe_ ? terminal_text(text) : std::string(text);
  write_output(style_ == ReplyStyle::dialogue ? wrap_.push(shown) : shown);
}

void ReplyView::finish() {
  if (style_ == ReplyStyle::dialogue) write_output(wrap_.flush());
  if (part_ == ReplyPart::thinking && colour_) write_output(plain);
  write_output("\n");
}

}  // namespace rwkv::apps
