#include "tokenizer/utf8.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

using Kind = Utf8Char::Kind;

/// What a stream makes of the pieces, with its end.
std::string streamed(const std::vector<std::string>& pieces) {
  Utf8Stream stream;
  std::string text;
  for (const std::string& piece : pieces) stream.push(piece, text);
  stream.finish(text);
  return text;
}

const std::string replacement = "\xef\xbf\xbd";

struct Replaced {
  std::string bytes, text;
};

/// Invalid bytes, and what they become: one U+FFFD for each maximal part.
const std::vector<Replaced> invalid = {
    {"a\x80z", "a" + replacement + "z"},
    {"\xc0\xaf", replacement + replacement},                                      // overlong
    {"\xe0\x80\xaf", replacement + replacement + replacement},                    // overlong
    {"\xf0\x80\x80\xaf", replacement + replacement + replacement + replacement},  // overlong
    {"\xed\xa0\x80", replacement + replacement + replacement},                    // a surrogate
    {"\xf4\x90\x80\x80", replacement + replacement + replacement + replacement},  // above U+10FFFF
    {"\xf5\x80\xff", replacement + replacement + replacement},                    // never in UTF-8
    {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf"
     "A",  // the standard's table 3-11
     replacement + replacement + replacement + replacement + "A"},
    {"\xf0\x9f\x98x", replacement + "x"},
    {"\xe4\xbd", replacement},
    {"\xe4\xbd\xe4\xbd\xa0", replacement + "\xe4\xbd\xa0"},
};

}  // namespace

TEST_CASE("every code is written and read as one character, and its beginnings are incomplete") {
  int wrong = 0;
  for (char32_t code = 0; code <= 0x10ffff; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    std::string bytes;
    append_utf8(code, bytes);
    const Utf8Char c = read_utf8(bytes + "x");
    if (c.kind != Kind::whole || c.code != code || c.length != bytes.size()) wrong++;
    for (size_t size = 1; size < bytes.size(); size++) {
      const Utf8Char part = read_utf8(bytes.substr(0, size));
      if (part.kind != Kind::incomplete || part.length != size) wrong++;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("what is invalid becomes one U+FFFD for each maximal part, however it is cut") {
  for (const Replaced& row : invalid) {
    CAPTURE(row.bytes);
    CHECK(streamed({row.bytes}) == row.text);
    std::vector<std::string> single;
    for (char byte : row.bytes) single.emplace_back(1, byte);
    CHECK(streamed(single) == row.text);
    for (size_t cut = 0; cut <= row.bytes.size(); cut++) {
      CHECK(streamed({row.bytes.substr(0, cut), "", row.bytes.substr(cut)}) == row.text);
    }
  }
}

TEST_CASE("a character split over pieces is held back until it is whole") {
  Utf8Stream stream;
  std::string text;
  stream.push("a\xf0", text);
  CHECK(text == "a");
  stream.push("\x9f", text);
  stream.push("\x98", text);
  CHECK(text == "a");
  stream.push(
      "\x80"
      "b",
      text);
  CHECK(text ==
        "a\xf0\x9f\x98\x80"
        "b");
  stream.finish(text);
  CHECK(text ==
        "a\xf0\x9f\x98\x80"
        "b");
}

TEST_CASE("a character that never becomes whole ends as one U+FFFD, and the stream starts anew") {
  Utf8Stream stream;
  std::string text;
  stream.push("\xf0\x9f\x98", text);
  CHECK(text.empty());
  stream.finish(text);
  CHECK(text == replacement);
  stream.finish(text);
  CHECK(text == replacement);
  stream.push("\x80", text);
  CHECK(text == replacement + replacement);
  stream.push("z", text);
  CHECK(text == replacement + replacement + "z");
}

TEST_CASE("any cutting of random bytes gives the same characters, all of them whole") {
  std::mt19937 random(3);
  const std::string lead = "\xe4\xbd\xa0\xf0\x9f\x98\x80\xc3\xa9\xed\xa0\xf4\x90";
  for (int i = 0; i < 3000; i++) {
    std::string bytes;
    for (uint32_t n = random() % 30; n > 0; n--) {
      bytes += random() % 4 == 0 ? static_cast<char>(random() & 0xff) : lead[random() % lead.size()];
    }
    const std::string whole = streamed({bytes});
    std::vector<std::string> pieces;
    for (size_t begin = 0; begin < bytes.size();) {
      const size_t size = random() % 4;
      pieces.push_back(bytes.substr(begin, size));
      begin += size;
    }
    REQUIRE(streamed(pieces) == whole);
    for (std::string_view rest = whole; !rest.empty(); rest.remove_prefix(read_utf8(rest).length)) {
      REQUIRE(read_utf8(rest).kind == Kind::whole);
    }
  }
}

TEST_CASE("a terminal gets no control characters but newline and tab") {
  CHECK(terminal_text("plain \xe4\xbd\xa0\n\ttext") == "plain \xe4\xbd\xa0\n\ttext");
  CHECK(terminal_text("\x1b[2J\x1b]0;title\x07") == "\\x1b[2J\\x1b]0;title\\x07");
  CHECK(terminal_text(std::string("\0\r\b\x7f", 4)) == "\\x00\\x0d\\x08\\x7f");
  CHECK(terminal_text("\xc2\x80\xc2\x9b"
                      "31m\xc2\x9f\xc2\xa0") ==
        "\\x80\\x9b"
        "31m\\x9f\xc2\xa0");
  CHECK(terminal_text("\x9b\xff\xe4\xbd") == "\\x9b\\xff\\xe4\\xbd");
  for (int byte = 0; byte < 256; byte++) {
    const std::string safe = terminal_text(std::string(1, static_cast<char>(byte)));
    const bool is_shown = (byte >= 0x20 && byte < 0x7f) || byte == '\n' || byte == '\t';
    CHECK(safe.size() == (is_shown ? 1 : 4));
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
