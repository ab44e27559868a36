#include "tokenizer/unicode.h"

#include <doctest/doctest.h>

#include <initializer_list>
#include <random>
#include <string>

#include "tokenizer/utf8.h"

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

std::string utf8(const std::u32string& codes) {
  std::string text;
  for (char32_t code : codes) append_utf8(code, text);
  return text;
}

std::string nfc(const std::string& text) {
  std::string out;
  append_nfc(text, out);
  return out;
}

std::string nfc(const std::u32string& codes) { return nfc(utf8(codes)); }

}  // namespace

TEST_CASE("characters have the classes that Unicode gives them") {
  const auto check = [](CharClass expected, std::initializer_list<char32_t> codes) {
    for (char32_t code : codes) {
      CAPTURE(static_cast<uint32_t>(code));
      CHECK(char_class(code) == expected);
    }
  };
  check(CharClass::letter,
        {'A', 'z', 0xaa, 0xb5, 0xe9, 0x3b1, 0x4e00, 0x9fff, 0xac00, 0xd7a3, 0x1d400, 0x31350});
  check(CharClass::number, {'0', '9', 0xb2, 0xbd, 0x663, 0x2167, 0x3007, 0x1d7ff});
  check(CharClass::space,
        {9, 10, 11, 12, 13, 32, 0x85, 0xa0, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000});
  check(CharClass::other, {0, 8, 14, 0x1c, 0x1f, '!', '_', 0x7f, 0x301, 0x180e, 0x200b, 0x2060, 0xfeff,
                           0xfffd, 0x1f600, 0x10ffff});
}

TEST_CASE("NFC composes, and leaves alone what must not compose") {
  CHECK(nfc(U"plain text") == "plain text");
  CHECK(nfc(U"e\u0301") == utf8(U"\u00e9"));
  CHECK(nfc(U"xe\u0301x") == utf8(U"x\u00e9x"));
  CHECK(nfc(U"a\u0302\u0301") == utf8(U"\u1ea5"));  // two marks, one after the other
  CHECK(nfc(U"\u1e69") == utf8(U"\u1e69"));
  CHECK(nfc(U"\u1e0b\u0323") == utf8(U"\u1e0d\u0307"));  // marks change order
  CHECK(nfc(U"q\u0307\u0323") == utf8(U"q\u0323\u0307"));
  CHECK(nfc(U"e\u0302\u0302") == utf8(U"\u00ea\u0302"));  // a mark of the same class blocks
  CHECK(nfc(U"a\u0345\u0301") == utf8(U"\u00e1\u0345"));
  CHECK(nfc(U"\u212b\u2126\u212a") == utf8(U"\u00c5\u03a9K"));  // singletons
  CHECK(nfc(U"\u0958") == utf8(U"\u0915\u093c"));               // excluded from composition
  CHECK(nfc(U"\u0344") == utf8(U"\u0308\u0301"));
  CHECK(nfc(U"\uf900\U0002f800") == utf8(U"\u8c48\u4e3d"));
  CHECK(nfc(U"\u09c7\u09be") == utf8(U"\u09cb"));  // two starters
  CHECK(nfc(U"\u0301a") == utf8(U"\u0301a"));      // a mark with nothing before it
  CHECK(nfc(U"\u0323\u0301\u0323") == utf8(U"\u0323\u0323\u0301"));
  CHECK(nfc(utf8(U"a") + '\0' + utf8(U"\u0301")) == std::string("a\0\xcc\x81", 4));
}

TEST_CASE("NFC composes Hangul by arithmetic") {
  CHECK(nfc(U"\u1112\u1161\u11ab") == utf8(U"\ud55c"));
  CHECK(nfc(U"\u1112\u1161") == utf8(U"\ud558"));
  CHECK(nfc(U"\ud558\u11ab") == utf8(U"\ud55c"));
  CHECK(nfc(U"\ud55c\u11ab") == utf8(U"\ud55c\u11ab"));
  CHECK(nfc(U"\u1100\u1100\u1161") == utf8(U"\u1100\uac00"));
  CHECK(nfc(U"\uac00\u11a7") == utf8(U"\uac00\u11a7"));
  CHECK(nfc(U"\uac00\u0301\u11a8") == utf8(U"\uac00\u0301\u11a8"));
}

TEST_CASE("NFC leaves bytes that are not UTF-8 as they are, and composes nothing across them") {
  CHECK(nfc("e\xff\xcc\x81") == "e\xff\xcc\x81");
  CHECK(nfc("e\xcc\x81\xe4\xbd") == "\xc3\xa9\xe4\xbd");
  CHECK(nfc("\xed\xa0\x80\xc0\x80") == "\xed\xa0\x80\xc0\x80");
}

TEST_CASE("NFC of NFC is itself") {
  std::mt19937 random(6);
  const std::u32string some =
      U"aeoq\u0301\u0302\u0307\u0323\u0345\u0327\u1100\u1161\u11a8\uac00\u09c7\u09be\u0344\u212b\u1e69\u0958"
      U"\u3099\u304b";
  for (int i = 0; i < 5000; i++) {
    std::u32string codes;
    for (uint32_t n = random() % 12; n > 0; n--) {
      codes += random() % 4 == 0 ? static_cast<char32_t>(random() % 0xd800) : some[random() % some.size()];
    }
    const std::string once = nfc(codes);
    REQUIRE(nfc(once) == once);
  }
}

TEST_CASE("a long row of marks is sorted in reasonable time") {
  std::string marks = "a";
  for (int i = 0; i < 500'000; i++) marks += i % 2 == 0 ? "\xcc\x81" : "\xcc\xa3";
  const std::string sorted = nfc(marks);
  CHECK(sorted.substr(0, 3) == "\xe1\xba\xa1");  // a with the first U+0323
  CHECK(sorted.substr(3, 2) == "\xcc\xa3");
  CHECK(sorted.ends_with("\xcc\x81"));
  CHECK(sorted.size() == marks.size());
}

}  // namespace rwkv::test

TEST_SUITE_END();
