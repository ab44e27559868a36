#include "tokenizer/vocabulary.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>
#include <vector>

#include "test/support.h"
#include "test/tokenizer/reference.h"
#include "test/tokenizer/small_vocabularies.h"

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

/// The error for a vocabulary of the single bytes and a line 257.
std::string error_of_line(const std::string& line) {
  return error_of([&] { parse_world_vocabulary(single_byte_lines() + line, "V"); });
}

/// The bytes of the literal in a line `1000 LITERAL LENGTH`.
std::string bytes_of(const std::string& literal, size_t length) {
  const std::string line = fmt::format("1000 {} {}\n", literal, length);
  return std::string(parse_world_vocabulary(single_byte_lines() + line, "V").tokens.bytes(1000));
}

}  // namespace

TEST_CASE("a vocabulary's literals mean what Python means by them") {
  using namespace std::string_literals;
  CHECK(bytes_of("'ab'", 2) == "ab");
  CHECK(bytes_of("\"it's\"", 4) == "it's");
  CHECK(bytes_of("'say \"a\"'", 7) == "say \"a\"");
  CHECK(bytes_of(R"('\\\'\"')", 3) == "\\'\"");
  CHECK(bytes_of(R"('\a\b\f\n\r\t\v')", 7) == "\a\b\f\n\r\t\v");
  CHECK(bytes_of(R"(b'\a\b\f\n\r\t\v')", 7) == "\a\b\f\n\r\t\v");
  CHECK(bytes_of(R"('\x41\xe9')", 3) == "A\xc3\xa9");
  CHECK(bytes_of(R"(b'\x41\xe9')", 2) == "A\xe9");
  CHECK(bytes_of(R"(b"\xFF\xfe")", 2) == "\xff\xfe");
  CHECK(bytes_of(R"('\u4f60\U0001F600')", 7) == "\xe4\xbd\xa0\xf0\x9f\x98\x80");
  CHECK(bytes_of("'\xe4\xbd\xa0'", 3) == "\xe4\xbd\xa0");
  CHECK(bytes_of(R"('\0\00\000\0000')", 5) == "\0\0\0\0"s + "0");
  CHECK(bytes_of(R"('\101\18')", 3) == "A\x01"s + "8");
  CHECK(bytes_of(R"('\377')", 2) == "\xc3\xbf");
  CHECK(bytes_of(R"(b'\377\0')", 2) == "\xff\0"s);
  CHECK(bytes_of("'\t \x0c'", 3) == "\t \x0c");
}

TEST_CASE("ids come in any order, lines end with LF or CR LF, and the last may lack its end") {
  const std::string lines = single_byte_lines();
  const auto expected = make_tokenizer(lines + "900 'abc' 3\n700 'abcd' 4\n");
  std::string crlf;
  for (char c : lines + "700 'abcd' 4\n900 'abc' 3\n") crlf += c == '\n' ? "\r\n" : std::string(1, c);
  for (const std::string& file : {"700 'abcd' 4\n900 'abc' 3\n" + lines, lines + "900 'abc' 3\n700 'abcd' 4",
                                  crlf, crlf.substr(0, crlf.size() - 2)}) {
    const auto tokenizer = make_tokenizer(file);
    REQUIRE(tokenizer->size() == 901);
    for (int32_t id = 0; id < 901; id++) CHECK(tokenizer->bytes(id) == expected->bytes(id));
    CHECK(tokenizer->encode("abcdabc") == std::vector<int32_t>{700, 900});
  }
}

TEST_CASE("a bad line of a vocabulary is named with its number and its fault") {
  struct Row {
    std::string line, message;
  };
  const std::vector<Row> rows = {
      {R"(300 '\q' 2)", "bad escape \\q in a str literal"},
      {R"(300 '\N{DASH}' 3)", "bad escape \\N in a str literal"},
      {R"(300 b'\u0041' 1)", "bad escape \\u in a bytes literal"},
      {R"(300 '\x4' 1)", "bad escape \\x: it takes 2 digits of base 16"},
      {R"(300 '\x+4' 1)", "bad escape \\x: it takes 2 digits of base 16"},
      {R"(300 '\x-1' 1)", "bad escape \\x: it takes 2 digits of base 16"},
      {R"(300 '\u12g4' 1)", "bad escape \\u: it takes 4 digits of base 16"},
      {R"(300 '\U0001F60' 4)", "bad escape \\U: it takes 8 digits of base 16"},
      {R"(300 '\U00110000' 4)", "bad escape: code above U+10FFFF"},
      {R"(300 '\UFFFFFFFF' 4)", "bad escape: code above U+10FFFF"},
      {R"(300 '\400' 2)", "bad escape: octal above \\377"},
      {R"(300 '\ud83d\ude00' 4)", "U+D83D is a surrogate, which UTF-8 has no bytes for"},
      {"300 '\xed\xa0\xbd' 3", "not UTF-8: write single bytes as b'\\xNN'"},
      {"300 'a\xff' 2", "not UTF-8: write single bytes as b'\\xNN'"},
      {"300 'a\xe4\xbd' 3", "not UTF-8: write single bytes as b'\\xNN'"},
      {"300 b'\xc3\xa9' 2", "a bytes literal takes only ASCII characters: write others as \\xNN"},
      {std::string("300 'a\0' 2", 10), "a bare NUL or CR in the literal: write it as \\x00 or \\r"},
      {"300 'a\rb' 3", "a bare NUL or CR in the literal: write it as \\x00 or \\r"},
      {"300 'abc 3", "the literal has no closing quote"},
      {"300 \"abc' 3", "the literal has no closing quote"},
      {"300 'abc\\", "the literal has no closing quote"},
      {"300 'abc\\' 3", "the literal has no closing quote"},
      {"300 abc 3", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300 3 1", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300 r'abc' 3", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300 f'{abc}' 3", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300 br'abc' 3", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300 __import__('os').system('reboot') 3", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300  'abc' 3", "the token must be a literal: '...' or \"...\" or b'...'"},
      {"300 '''abc''' 3", "one space must follow the literal"},
      {"300 'abc'.upper() 3", "one space must follow the literal"},
      {"300 'ab' 'c' 3", "the length is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"300 'abc'", "one space must follow the literal"},
      {"300 'abc' ", "the length is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"300 'abc'  3", "the length is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"300 'abc'\t3", "one space must follow the literal"},
      {"300 'abc' 3 ", "something follows the length"},
      {"300 'abc' 3.0", "something follows the length"},
      {"300 'abc' 3\r\r", "something follows the length"},
      {"300 'abc' 0x3", "something follows the length"},
      {"300 'abc' 2", "the length is given as 2 but the token has 3 bytes"},
      {"300 'abc' -3", "the length is given as -3 but the token has 3 bytes"},
      {"300 'abc' 4294967299", "the length is given as 4294967299 but the token has 3 bytes"},
      {"300 'abc' 18446744073709551619", "the length is too large"},
      {"300 '\xc3\xa9' 1", "the length is given as 1 but the token has 2 bytes"},
      {"300 '' 0", "the token is empty"},
      {"300 b'' 0", "the token is empty"},
      {"300 '" + std::string(1025, 'a') + "' 1025", "the token has 1025 bytes: at most 1024 are allowed"},
      {"0 'abc' 3", "id 0 is outside 1 to 65535"},
      {"-1 'abc' 3", "id -1 is outside 1 to 65535"},
      {"65536 'abc' 3", "id 65536 is outside 1 to 65535"},
      {"4294967596 'abc' 3", "id 4294967596 is outside 1 to 65535"},
      {"99999999999999999999 'abc' 3", "the id is too large"},
      {"+300 'abc' 3", "the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"x 'abc' 3", "the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {" 300 'abc' 3", "the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"300", "one space must follow the id"},
      {"300,'abc',3", "one space must follow the id"},
      {"\n300 'abc' 3", "the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"# comment", "the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1"},
      {"12 'abc' 3", "id 12 stands in line 12 already"},
      {"300 'a' 1", "the same token as in line 98"},
      {R"(300 b'\x61' 1)", "the same token as in line 98"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.line);
    CHECK(error_of_line(row.line) == "V: line 257: " + row.message);
    CHECK(error_of_line(row.line + "\n301 'next' 4\n") == "V: line 257: " + row.message);
  }
}

TEST_CASE("tokens that stand twice are found wherever they stand") {
  CHECK(error_of_line("300 'longer than eight' 17\n400 'x' 1\n") ==
        "V: line 258: the same token as in line 121");
  CHECK(error_of_line("500 'longer than eight' 17\n400 'longer than eight' 17\n") ==
        "V: line 258: the same token as in line 257");
  CHECK(error_of_line("500 'longer than eight' 17\n400 'longer than nine' 16\n") == "");
}

TEST_CASE("each single byte must have a token") {
  const std::string lines = single_byte_lines();
  for (int byte = 0; byte < 256; byte++) {
    const size_t begin = lines.find(fmt::format("{} b'\\x{:02x}'", byte + 1, byte));
    REQUIRE(begin != std::string::npos);
    const std::string without = lines.substr(0, begin) + lines.substr(lines.find('\n', begin) + 1);
    CHECK(error_of([&] { parse_world_vocabulary(without, "V"); }) ==
          fmt::format(
              "V: no token stands for the single byte {:02x}, so not every text could be encoded: add a line "
              "for it",
              byte));
  }
}

TEST_CASE("a vocabulary in the wrong encoding, or of nothing, is refused") {
  const auto error = [](const std::string& file) { return error_of([&] { make_tokenizer(file); }); };
  const std::string lines = single_byte_lines();
  CHECK(error("") == "V: the vocabulary is empty");
  CHECK(error("\n") == "V: line 1: the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1");
  CHECK(error("\xef\xbb\xbf" + lines) ==
        "V: line 1: begins with a byte order mark: save the vocabulary as UTF-8 without one");
  std::string low, high;
  for (char c : lines) {
    low += {c, '\0'};
    high += {'\0', c};
  }
  CHECK(error("\xff\xfe" + low) == "V: line 1: UTF-16 text: save the vocabulary as UTF-8");
  CHECK(error("\xfe\xff" + high) == "V: line 1: UTF-16 text: save the vocabulary as UTF-8");
  CHECK(error(low) == "V: line 1: one space must follow the id");
  CHECK(error(high) == "V: line 1: the id is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1");
  CHECK(error("1 '\\x00' 1\r2 '\\x01' 1\r") == "V: line 1: something follows the length");
}

TEST_CASE("a vocabulary cut anywhere is refused, or is a whole one") {
  const std::string file = single_byte_lines() + "300 '\\u4f60\\'' 4\n";
  for (size_t size = 0; size < file.size(); size++) {
    const std::string error = error_of([&] { make_tokenizer(file.substr(0, size)); });
    const bool is_whole =
        size == file.size() - 1 || size == file.find("300 ") || size == file.find("300 ") - 1;
    CAPTURE(size);
    CHECK(error.starts_with("V: ") == !is_whole);
  }
}

TEST_CASE("a vocabulary with one byte changed is refused, or encodes every text") {
  const std::string file = "300 '\\u4f60\\'' 4\n301 \"\\0\\xe9\" 3\n" + single_byte_lines();
  const std::string every_byte = [] {
    std::string bytes;
    for (int byte = 0; byte < 256; byte++) bytes += static_cast<char>(byte);
    return bytes;
  }();
  for (size_t i = 0; i < 80; i++) {  // what follows is more of the same
    for (int byte : {0x00, 0x0a, 0x0d, 0x20, 0x27, 0x30, 0x5c, 0x80, 0xff, file[i] ^ 1, file[i] ^ 0x80}) {
      std::string changed = file;
      changed[i] = static_cast<char>(byte);
      CAPTURE(i);
      CAPTURE(byte);
      try {
        const auto tokenizer = make_tokenizer(changed);
        REQUIRE(tokenizer->decode(tokenizer->encode(every_byte)) == every_byte);
      } catch (const Error& error) {
        REQUIRE(std::string(error.what()).starts_with("V: "));
      }
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
