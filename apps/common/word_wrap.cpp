#include "apps/common/word_wrap.h"

#include <cwchar>

#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr int least_width = 20;

int columns_of(char32_t code) {
  int columns = wcwidth(static_cast<wchar_t>(code));
  return columns < 0 ? 0 : columns;
}

}  // namespace

int columns_of(std::string_view text) {
  int columns = 0;
  while (!text.empty()) {
    Utf8Char c = read_utf8(text);
    columns += columns_of(c.code);
    text.remove_prefix(c.length);
  }
  return columns;
}

std::string WordWrap::push(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    Utf8Char c = read_utf8(text);
    std::string_view bytes = text.substr(0, c.length);
    text.remove_prefix(c.length);
    if (bytes == "\n" || bytes == " " || bytes == "\t") {
      end_word(out);
      inside_ = false;
      if (bytes == "\n") {
        out += blanks_ + "\n";
        blanks_.clear();
        column_ = 0;
      } else {
        blanks_ += bytes == "\t" ? "    " : " ";
      }
      continue;
    }
    bool wide = c.kind == Utf8Char::Kind::whole && columns_of(c.code) == 2;
    if (wide) {
      end_word(out);
      inside_ = false;
    }
    word_ += bytes;
    bool line_full = width_ >= least_width && columns_of(word_) >= width_;  // it is not held back for longer
    if (wide || line_full) end_word(out);
    inside_ = inside_ || line_full;
  }
  return out;
}

std::string WordWrap::flush() {
  std::string out;
  end_word(out);
  out += blanks_;
  column_ += static_cast<int>(blanks_.size());
  blanks_.clear();
  return out;
}

std::string wrapped(std::string_view text, int width, int taken) {
  WordWrap wrap(width, taken);
  std::string out = wrap.push(text);
  return out + wrap.flush();
}

void WordWrap::end_word(std::string& out) {
  if (word_.empty()) return;
  int columns = columns_of(word_);
  bool breaks = !inside_ && width_ >= least_width && column_ > 0 &&
                column_ + static_cast<int>(blanks_.size()) + columns > width_;
  if (breaks) {
    out += "\n";
    column_ = 0;
  } else {
    out += blanks_;
    column_ += static_cast<int>(blanks_.size());
  }
  out += word_;
  column_ += columns;
  // A word longer than a line is broken by the terminal; behind a full line the cursor still stands on it.
  if (width_ > 0 && column_ > width_) column_ = (column_ - 1) % width_ + 1;
  blanks_.clear();
  word_.clear();
}

}  // namespace rwkv::apps
