#include "tokenizer/words.h"

#include <array>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace rwkv {

namespace {

struct Char {
  CharClass value;
  size_t length;
};

Char read_char(std::string_view text) {
  const Utf8Char c = read_utf8(text);
  return {c.kind == Utf8Char::Kind::whole ? char_class(c.code) : CharClass::other, c.length};
}

/// The length of the characters of one class at the front, and of the last of them.
struct Run {
  size_t length = 0;
  size_t last = 0;
};

Run run_of(std::string_view text, CharClass value) {
  Run run;
  while (run.length < text.size()) {
    const Char c = read_char(text.substr(run.length));
    if (c.value != value) break;
    run = {run.length + c.length, c.length};
  }
  return run;
}

}  // namespace

size_t first_word(std::string_view text) {
  constexpr std::array<std::string_view, 7> contractions = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  for (std::string_view ending : contractions) {
    if (text.starts_with(ending)) return ending.size();
  }
  const size_t space = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const CharClass value = read_char(text.substr(space)).value;
  if (value != CharClass::space) return space + run_of(text.substr(space), value).length;

  // White space: all of it at the end of the text, else all but the last, which may belong to the next word.
  const Run run = run_of(text, CharClass::space);
  return run.length == text.size() || run.length == run.last ? run.length : run.length - run.last;
}

}  // namespace rwkv
