#include "apps/common/word_wrap.h"

#include <doctest/doctest.h>

#include <clocale>
#include <sstream>
#include <string>

TEST_SUITE_BEGIN("apps");

namespace rwkv::apps {

TEST_CASE("lines are broken between words") {
  std::setlocale(LC_CTYPE, "C.UTF-8");
  CHECK(wrapped("aaaaaaaaa bbbbbbbbbb cc", 20) == "aaaaaaaaa bbbbbbbbbb\ncc");
  CHECK(wrapped("aaaaaaaaa bbbbbbbbbb cc", 20, 1) == "aaaaaaaaa\nbbbbbbbbbb cc");
  CHECK(wrapped("  a   b\n\n  c ", 20) == "  a   b\n\n  c ");  // blanks stay
  CHECK(wrapped("a 0123456789012345678901234 b", 20) == "a\n0123456789012345678901234 b");
  CHECK(wrapped("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbb", 19) ==
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbb");
  CHECK(wrapped("", 20).empty());
  // Wide characters may part, and take two columns.
  CHECK(wrapped("\u4f60\u597d\u4f60\u597d\u4f60\u597d\u4f60\u597d\u4f60\u597d\u4f60\u597d", 21) ==
        "\u4f60\u597d\u4f60\u597d\u4f60\u597d\u4f60\u597d\u4f60\u597d\n\u4f60\u597d");
  CHECK(columns_of("\u4f60a\xcc\x81") == 3);
}

TEST_CASE("a word that fills a line is not held back") {
  WordWrap wrap(20);
  std::string shown;
  for (int i = 0; i < 100; i++) shown += wrap.push("a");
  CHECK(shown.size() == 100);
  CHECK(wrap.flush().empty());
}

TEST_CASE("no line is too long, and no word is lost, however the text comes") {
  std::setlocale(LC_CTYPE, "C.UTF-8");
  unsigned random = 1;
  auto next = [&](unsigned n) {
    return (random = random * 1664525 + 1013904223) >> 16 & 0x7fff ? (random >> 16) % n : 0;
  };
  for (int round = 0; round < 200; round++) {
    int width = 20 + static_cast<int>(next(30));
    std::string text, out;
    for (unsigned i = 0; i < 40; i++)
      text += std::string(next(12) + 1, static_cast<char>('a' + next(26))) + (next(9) == 0 ? "\n" : " ");
    WordWrap wrap(width);
    for (size_t at = 0; at < text.size();) {
      size_t length = 1 + next(7);
      out += wrap.push(text.substr(at, length));
      at += length;
    }
    out += wrap.flush();
    CHECK(out == wrapped(text, width));
    std::istringstream lines(out), words(text), same(out);
    for (std::string line; std::getline(lines, line);) {
      CHECK(static_cast<int>(line.substr(0, line.find_last_not_of(' ') + 1).size()) <= width);
    }
    for (std::string word, other; words >> word;) {
      same >> other;
      CHECK(word == other);
    }
  }
}

}  // namespace rwkv::apps
