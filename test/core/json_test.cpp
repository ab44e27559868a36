#include "core/json.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

std::string rewritten(std::string_view text) { return to_string(parse_json(text, "x")); }

std::string refusal(std::string_view text) {
  return error_of([&] { parse_json(text, "file.json"); });
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("json: every kind of value is read and written") {
  CHECK(rewritten(R"( { "a" : [ 1 , -2 , 2.5 , true , false , null , "x" , { } , [ ] ] } )") ==
        R"({"a":[1,-2,2.5,true,false,null,"x",{},[]]})");
  Json json = parse_json(R"({"n": 7, "s": "text", "a": [1, 2], "o": {"k": "v"}, "m": -7, "d": 7.0})", "x");
  REQUIRE(json.object() != nullptr);
  CHECK(json.object()->size() == 6);
  REQUIRE(json.find("n") != nullptr);
  CHECK(*json.find("n")->unsigned_number() == 7);
  CHECK(*json.find("s")->string() == "text");
  CHECK(json.find("a")->array()->size() == 2);
  CHECK(*json.find("o")->find("k")->string() == "v");
  CHECK(json.find("m")->unsigned_number() == nullptr);
  CHECK(std::get<int64_t>(json.find("m")->value) == -7);
  CHECK(json.find("d")->unsigned_number() == nullptr);
  CHECK(json.find("missing") == nullptr);
  CHECK(json.find("s")->find("k") == nullptr);
  CHECK(json.find("s")->object() == nullptr);
  CHECK(json.find("s")->array() == nullptr);
  CHECK(json.find("n")->string() == nullptr);
}

TEST_CASE("json: the members of an object keep their order") {
  CHECK(rewritten(R"({"z":1,"a":2,"m":3})") == R"({"z":1,"a":2,"m":3})");
}

TEST_CASE("json: whole numbers keep all their bits") {
  CHECK(rewritten("[0,18446744073709551615,-9223372036854775808]") ==
        "[0,18446744073709551615,-9223372036854775808]");
  CHECK(parse_json("18446744073709551616", "x").unsigned_number() == nullptr);
  CHECK(parse_json("1e3", "x").unsigned_number() == nullptr);
  CHECK(*parse_json("9223372036854775808", "x").unsigned_number() == 9223372036854775808u);
}

TEST_CASE("json: floating point numbers read back as they were written") {
  std::mt19937_64 random(3);
  for (int i = 0; i < 20'000; i++) {
    auto value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    Json read = parse_json(to_string(Json{value}), "x");
    REQUIRE(std::holds_alternative<double>(read.value));
    REQUIRE(std::get<double>(read.value) == value);
  }
  CHECK(to_string(Json{0.1}) == "0.1");
  CHECK(to_string(Json{std::numeric_limits<double>::quiet_NaN()}) == "null");
}

TEST_CASE("json: strings keep control characters, quotes and every character of Unicode") {
  std::string all;
  for (char c = 0; c < 0x7f; c++) all += c;
  all += "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80";
  CHECK(*parse_json(to_string(Json{all}), "x").string() == all);
  CHECK(*parse_json(R"("\u0000\u00e9\ud83d\ude00\/")", "x").string() ==
        std::string("\0\xc3\xa9\xf0\x9f\x98\x80/", 8));
  CHECK(to_string(Json{std::string("line\nbreak")}) == R"("line\nbreak")");
}

TEST_CASE("json: bytes that are not UTF-8 are written as U+FFFD, in keys too") {
  CHECK(to_string(Json{std::string("a\xff"
                                   "b")}) ==
        "\"a\xef\xbf\xbd"
        "b\"");
  CHECK(to_string(Json{Json::Object{{"\xc3", Json{true}}}}) == "{\"\xef\xbf\xbd\":true}");
}

TEST_CASE("json: what is not JSON is refused with the offset") {
  CHECK(refusal("").starts_with("file.json: not valid JSON at byte 0: "));
  CHECK(refusal(R"({"a": tru})").starts_with("file.json: not valid JSON at byte 9: "));
  CHECK(refusal("[1 2]").starts_with("file.json: not valid JSON at byte 3: "));
  CHECK(refusal("{} x").starts_with("file.json: not valid JSON at byte 3: "));
  CHECK(refusal(std::string_view("{}\0{}", 5)) == "file.json: not valid JSON at byte 2: a zero byte");
  CHECK(refusal("[1e999]").find("number overflow") != std::string::npos);
  for (const char* text : {"[",
                           "]",
                           "{",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{1:2}",
                           "{'a':1}",
                           "[1,]",
                           "{\"a\":1,}",
                           "[01]",
                           "[+1]",
                           "[.5]",
                           "[1.]",
                           "[1e]",
                           "[0x1]",
                           "[NaN]",
                           "[Infinity]",
                           "[-]",
                           "\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "\"\n\"",
                           "\"\xff\"",
                           "\"\xc0\x80\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xf4\x90\x80\x80\"",
                           "nul",
                           "truee",
                           "/**/1",
                           "\xff\xfe[\0]\0"}) {
    CAPTURE(text);
    std::string message = refusal(text);
    CHECK(message.starts_with("file.json: not valid JSON at byte "));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 400);
  }
}

TEST_CASE("json: messages stay on one line and short whatever the text holds") {
  std::string message = refusal("\"" + std::string(100'000, 'x') + "\n\x1b[31m");
  CHECK(message.starts_with("file.json: not valid JSON"));
  CHECK(message.size() < 400);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.find('\x1b') == std::string::npos);
}

TEST_CASE("json: a key that stands twice is refused by name") {
  CHECK(refusal(R"({"a":1,"b":2,"a":3})") == "file.json: the key \"a\" stands twice in a JSON object");
  CHECK(refusal(R"([{"o":{"x\n":1,"x\u000a":2}}])") ==
        "file.json: the key \"x\\x0a\" stands twice in a JSON object");
  CHECK(refusal(R"({"":1,"":2})") == "file.json: the key \"\" stands twice in a JSON object");
  CHECK(rewritten(R"({"a":{"a":1},"b":{"a":2}})") == R"({"a":{"a":1},"b":{"a":2}})");
}

TEST_CASE("json: 64 levels are read, 65 and a hundred thousand are refused") {
  CHECK(rewritten(nested(64)) == nested(64));
  CHECK(refusal(nested(65)) == "file.json: JSON nested deeper than 64 levels");
  CHECK(refusal(std::string(100'000, '[')) == "file.json: JSON nested deeper than 64 levels");
  std::string objects;
  for (int i = 0; i < 100'000; i++) objects += "{\"a\":";
  CHECK(refusal(objects) == "file.json: JSON nested deeper than 64 levels");
}

TEST_CASE("json: a text of millions of tiny values is refused before it fills the memory") {
  std::string many = "[0";
  for (int i = 0; i < 1'000'000; i++) many += ",0";
  CHECK(refusal(many + "]") == "file.json: JSON with more than 1000000 values");
}

TEST_CASE("json: every cut of a text is refused, every flipped byte is refused or read") {
  const std::string text = R"({"a":[1,-2.5e3,"x\u00e9"],"b":{"c":true,"d":null}})";
  CHECK(rewritten(text) == "{\"a\":[1,-2500.0,\"x\xc3\xa9\"],\"b\":{\"c\":true,\"d\":null}}");
  for (size_t length = 0; length < text.size(); length++) {
    REQUIRE(refusal(text.substr(0, length)).starts_with("file.json: not valid JSON at byte "));
  }
  for (size_t i = 0; i < text.size(); i++) {
    for (int flip = 1; flip < 256; flip++) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ flip);
      std::string message = refusal(flipped);
      if (message.empty()) {
        std::string once = rewritten(flipped);
        REQUIRE(rewritten(once) == once);
      } else {
        REQUIRE(message.starts_with("file.json: "));
      }
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
