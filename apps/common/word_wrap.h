// Breaks text that streams to a terminal between words.
#pragma once

#include <string>
#include <string_view>

namespace rwkv::apps {

/// Columns that a text takes on a terminal: wide characters take two, combining ones none. Needs a UTF-8
/// locale (LC_CTYPE).
int columns_of(std::string_view text);

class WordWrap {
 public:
  /// For lines of `width` columns, the first of which are taken already. Under 20 columns nothing is broken.
  explicit WordWrap(int width, int taken = 0) : width_(width), column_(taken) {}

  /// Text, in pieces of whole characters, with line breaks where words would pass the margin. A word is held
  /// back until it is whole; wide characters (Chinese, Japanese) are words of their own. Blanks where a line
  /// is broken go away, others stay as they are.
  std::string push(std::string_view text);
  /// The word that was held back.
  std::string flush();

 private:
  void end_word(std::string& out);

  int width_, column_;
  bool inside_ = false;  // a word of which a part is out already
  std::string word_, blanks_;
};

/// All of a text.
std::string wrapped(std::string_view text, int width, int taken = 0);

}  // namespace rwkv::apps
