#include "tokenizer/words.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    words.emplace_back(text.substr(0, first_word(text)));
    text.remove_prefix(words.back().size());
  }
  return words;
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("letters, numbers and other characters are words of their own, each with one space before it") {
  CHECK(words_of("Hello world") == Words{"Hello", " world"});
  CHECK(words_of("abc123!?") == Words{"abc", "123", "!?"});
  CHECK(words_of(" a 1 !") == Words{" a", " 1", " !"});
  CHECK(words_of("x_y") == Words{"x", "_", "y"});
  CHECK(words_of("\xc3\xa9t\xc3\xa9\xe4\xbd\xa0 \xd9\xa3\xc2\xbd") ==
        Words{"\xc3\xa9t\xc3\xa9\xe4\xbd\xa0", " \xd9\xa3\xc2\xbd"});
  CHECK(words_of("e\xcc\x81") == Words{"e", "\xcc\x81"});
}

TEST_CASE("contractions are words of their own, only in small letters and without a space") {
  CHECK(words_of("it's we're I'll I'd I'm don't I've") ==
        Words{"it", "'s", " we", "'re", " I", "'ll", " I", "'d", " I", "'m", " don", "'t", " I", "'ve"});
  CHECK(words_of("IT'S") == Words{"IT", "'", "S"});
  CHECK(words_of(" 's") == Words{" '", "s"});
  CHECK(words_of("''s") == Words{"''", "s"});
  CHECK(words_of("'sa") == Words{"'s", "a"});
  CHECK(words_of("'r") == Words{"'", "r"});
}

TEST_CASE("white space leaves its last character to what follows, but only a space joins it") {
  CHECK(words_of("a   b") == Words{"a", "  ", " b"});
  CHECK(words_of("a\n\nb") == Words{"a", "\n", "\n", "b"});
  CHECK(words_of("a \n b") == Words{"a", " \n", " b"});
  CHECK(words_of("a\tb") == Words{"a", "\t", "b"});
  CHECK(words_of("a  ") == Words{"a", "  "});
  CHECK(words_of(" ") == Words{" "});
  CHECK(words_of("\r\n\r\n") == Words{"\r\n\r\n"});
  CHECK(words_of("\xe3\x80\x80\xc2\xa0 b") == Words{"\xe3\x80\x80\xc2\xa0", " b"});
  CHECK(words_of(" \xe3\x80\x80"
                 "b") == Words{" ", "\xe3\x80\x80", "b"});
  CHECK(words_of("\xe2\x80\x8b b") == Words{"\xe2\x80\x8b", " b"});  // U+200B is no white space
  CHECK(words_of("\x1c\x1d") == Words{"\x1c\x1d"});
}

TEST_CASE("bytes that are not UTF-8 go with punctuation") {
  CHECK(words_of("a\xff\xe4\xbd!b") == Words{"a", "\xff\xe4\xbd!", "b"});
  CHECK(words_of(" \x80 \xf0\x9f") == Words{" \x80", " \xf0\x9f"});
}

}  // namespace rwkv::test

TEST_SUITE_END();
