#include "tokenizer/bpe20b_file.h"

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

std::string error_of_file(const std::string& json) {
  return error_of([&] { make_tokenizer(json); });
}

/// What is wrong, between the path and the advice.
std::string fault_of(const SmallBpe& file) {
  const std::string error = error_of_file(file.json());
  const std::string advice = ": expected a tokenizer file like 20B_tokenizer.json";
  if (!error.starts_with("V: ") || !error.ends_with(advice)) return "not worded so: " + error;
  return error.substr(3, error.size() - 3 - advice.size());
}

struct Row {
  std::string part, fault;
};

void check_rows(std::string SmallBpe::*member, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    SmallBpe file;
    file.*member = row.part;
    CAPTURE(row.part);
    CHECK(fault_of(file) == row.fault);
  }
}

std::string added(const std::string& id, const std::string& content, const std::string& more = "") {
  return fmt::format(R"({{"id": {}, "content": {}, "normalized": true{}}})", id, content, more);
}

}  // namespace

TEST_CASE("the parts of a small tokenizer file are read") {
  const Bpe20bFile file = parse_bpe20b_file(SmallBpe().json(), "V");
  CHECK(file.nfc);
  CHECK(file.tokens.size() == 261);
  CHECK(file.tokens.bytes(259) == " a");
  CHECK(file.tokens.bytes(0) == std::string(1, '\0'));
  CHECK(file.byte_ids[255] == 255);
  REQUIRE(file.added.size() == 1);
  CHECK(file.added[0].content == "<end>");
  CHECK(file.merges.find('b', 'c')->rank == 2);
  CHECK(file.merges.find(256, 'c')->result == 257);
}

TEST_CASE(
    "merges may be pairs of texts, parts that are absent or null are off, and added tokens may be in the "
    "vocabulary") {
  SmallBpe file;
  file.merges = R"(["a", "b"], ["ab", "c"])";
  file.normalizer = "null";
  file.decoder = "null";
  file.rest = R"("post_processor": {"type": "ByteLevel"}, "extra": [1, 2])";
  file.model = R"("continuing_subword_prefix": "", "end_of_word_suffix": "", "byte_fallback": false)";
  file.words = R"("ab": 256, "abc": 257, "<end>": 260, "two words": 261)";
  file.added += ", " + added("261", R"("two words")");
  const auto tokenizer = make_tokenizer("\n " + file.json() + "\n");
  CHECK(tokenizer->encode("abc<end>two words") == std::vector<int32_t>{257, 260, 261});
  CHECK(tokenizer->encode("e\xcc\x81") == std::vector<int32_t>{'e', 0xcc, 0x81});
}

TEST_CASE("added tokens are looked for in normalized text, in normal form themselves") {
  SmallBpe file;
  file.added =
      added("300", R"("e\u0301")") + ", " + R"({"id": 301, "content": "o\u0301", "normalized": false})";
  const auto tokenizer = make_tokenizer(file.json());
  CHECK(tokenizer->encode("\xc3\xa9"
                          "e\xcc\x81") == std::vector<int32_t>{300, 300});
  CHECK(tokenizer->encode("o\xcc\x81\xc3\xb3") == std::vector<int32_t>{301, 0xc3, 0xb3});
}

TEST_CASE("what is not a tokenizer file is refused") {
  CHECK(error_of_file("{").starts_with("V: "));
  CHECK(error_of_file("{}") ==
        "V: \"pre_tokenizer\" is missing: expected a tokenizer file like 20B_tokenizer.json");
  CHECK(error_of_file(SmallBpe().json() + "x").starts_with("V: "));
  CHECK(error_of([] { parse_bpe20b_file("[]", "V"); }) ==
        "V: not a JSON object: expected a tokenizer file like 20B_tokenizer.json");
  CHECK(error_of_file(R"({"pre_tokenizer": {"type": "ByteLevel"}})") ==
        "V: \"model\" is missing: expected a tokenizer file like 20B_tokenizer.json");
}

TEST_CASE("options that would change the ids are refused") {
  check_rows(&SmallBpe::normalizer, {{R"({"type": "NFKC"})", "\"normalizer\" is not of type NFC"},
                                     {R"({})", "\"normalizer\" is not of type NFC"},
                                     {R"({"type": 1})", "\"normalizer\" is not of type NFC"},
                                     {R"("NFC")", "\"normalizer\" is not of type NFC"}});
  check_rows(&SmallBpe::decoder, {{R"({"type": "WordPiece"})", "\"decoder\" is not of type ByteLevel"}});
  check_rows(&SmallBpe::pre_tokenizer,
             {{"null", "\"pre_tokenizer\" is missing"},
              {"7", "\"pre_tokenizer\" is not of type ByteLevel"},
              {R"({"type": "Whitespace"})", "\"pre_tokenizer\" is not of type ByteLevel"},
              {R"({"type": "ByteLevel", "add_prefix_space": true})",
               "\"add_prefix_space\" of the pre_tokenizer is not supported"},
              {R"({"type": "ByteLevel", "use_regex": false})",
               "a pre_tokenizer without \"use_regex\" is not supported"}});
  check_rows(&SmallBpe::rest,
             {{R"("truncation": {"max_length": 5})", "\"truncation\" of the file is not supported"},
              {R"("padding": {"length": 5})", "\"padding\" of the file is not supported"},
              {R"("post_processor": {"type": "TemplateProcessing"})",
               "\"post_processor\" is not of type ByteLevel"}});
  check_rows(&SmallBpe::model,
             {{R"("type": "Unigram")", "\"model\" is not of type BPE"},
              {R"("type": null)", "\"model\" is not of type BPE"},
              {R"("dropout": 0.1)", "\"dropout\" of the model is not supported"},
              {R"("unk_token": "<unk>")", "\"unk_token\" of the model is not supported"},
              {R"("continuing_subword_prefix": "##")",
               "\"continuing_subword_prefix\" of the model is not supported"},
              {R"("end_of_word_suffix": "</w>")", "\"end_of_word_suffix\" of the model is not supported"},
              {R"("byte_fallback": true)", "\"byte_fallback\" of the model is not supported"},
              {R"("ignore_merges": true)", "\"ignore_merges\" of the model is not supported"}});
}

TEST_CASE("a bad vocabulary is refused") {
  check_rows(&SmallBpe::words,
             {{R"("ab": 256.5)", "the id of \"ab\" is not a number from 0 to 65535"},
              {R"("ab": -1)", "the id of \"ab\" is not a number from 0 to 65535"},
              {R"("ab": 65536)", "the id of \"ab\" is not a number from 0 to 65535"},
              {R"("ab": 18446744073709551615)", "the id of \"ab\" is not a number from 0 to 65535"},
              {R"("ab": "256")", "the id of \"ab\" is not a number from 0 to 65535"},
              {R"("ab": null)", "the id of \"ab\" is not a number from 0 to 65535"},
              {R"("ab": 97)", "id 97 stands for two tokens"},
              {R"("ab": 256, "bc": 256)", "id 256 stands for two tokens"},
              {R"("ab": 260)", "id 260 stands for two tokens"},
              {R"("": 256)", "token 256 is empty"},
              {"\"" + std::string(1025, 'a') + "\": 256", "token 256 has 1025 bytes, more than 1024"},
              {R"("a b": 256)", "token \"a b\" is not in the byte-level alphabet"},
              {R"("\u4f60": 256)", "token \"\xe4\xbd\xa0\" is not in the byte-level alphabet"},
              {R"("<end>": 261)", "token \"<end>\" has id 261 in the vocabulary and 260 as an added token"}});
  SmallBpe file;
  file.bytes = R"("a": 97, )";
  CHECK(fault_of(file) == "no token stands for the single byte 00");
  CHECK(error_of_file(R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": [], "merges": []}})")
            .starts_with("V: \"vocab\" is not an object"));
  CHECK(error_of_file(R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"merges": []}})")
            .starts_with("V: \"vocab\" is missing"));
  CHECK(error_of_file(R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": [1]})")
            .starts_with("V: \"model\" is not an object"));
}

TEST_CASE("only bytes that UTF-8 never has may lack a token") {
  for (unsigned byte = 0; byte < 256; byte++) {
    SmallBpe file;
    const std::string entry = fmt::format("\"{}\": {}, ", symbol_of(byte), byte);
    file.bytes.erase(file.bytes.find(entry), entry.size());
    file.words = R"("xyz": 256)";
    file.merges = "";
    const bool is_in_utf8 = byte != 0xc0 && byte != 0xc1 && byte < 0xf5;
    CAPTURE(byte);
    if (is_in_utf8) {
      CHECK(fault_of(file) == fmt::format("no token stands for the single byte {:02x}", byte));
    } else {
      CHECK(error_of_file(file.json()) == "");
    }
  }
}

TEST_CASE("bad merges are refused") {
  check_rows(&SmallBpe::merges, {{R"("a b", 7)", "merge 1 is not a pair of tokens"},
                                 {R"("ab")", "merge 0 is not a pair of tokens"},
                                 {R"(["a"])", "merge 0 is not a pair of tokens"},
                                 {R"(["a", "b", "c"])", "merge 0 is not a pair of tokens"},
                                 {R"(["a", 7])", "merge 0 is not a pair of tokens"},
                                 {R"(null)", "merge 0 is not a pair of tokens"},
                                 {R"("a b c")", "merge 0: \"b c\" is not in the vocabulary"},
                                 {R"("a ")", "merge 0: \"\" is not in the vocabulary"},
                                 {R"("qq a")", "merge 0: \"qq\" is not in the vocabulary"},
                                 {R"("a qq")", "merge 0: \"qq\" is not in the vocabulary"},
                                 {R"("a b", "c a")", "merge 1: \"ca\" is not in the vocabulary"},
                                 {R"("a b", "b c", "a b")", "merge 2 stands twice"}});
  SmallBpe file;
  const std::string json = file.json();
  const size_t begin = json.find("\"merges\": [");
  CHECK(error_of_file(json.substr(0, begin) + R"("merges": "a b"}})")
            .starts_with("V: \"merges\" is not a list"));
  CHECK(error_of_file(json.substr(0, begin) + R"("nothing": 0}})").starts_with("V: \"merges\" is missing"));
}

TEST_CASE("bad added tokens are refused") {
  check_rows(
      &SmallBpe::added,
      {{"7", "an added token is not an object"},
       {R"({"id": 300, "normalized": true})", "\"content\" is missing"},
       {R"({"id": 300, "content": "x"})", "\"normalized\" is missing"},
       {R"({"content": "xx", "normalized": true})", "\"id\" is missing"},
       {R"({"id": 300, "content": "xx", "normalized": 1})",
        "\"normalized\" of an added token is neither true nor false"},
       {added("300", "7"), "the content of an added token is not a text"},
       {added("-1", R"("xx")"), "the id of \"xx\" is not a number from 0 to 65535"},
       {added("65536", R"("xx")"), "the id of \"xx\" is not a number from 0 to 65535"},
       {added("300", R"("")"), "token 300 is empty"},
       {added("300", R"("xx")") + ", " + added("300", R"("yy")"), "id 300 stands for two tokens"},
       {added("300", R"("xx")") + ", " + added("301", R"("xx")"), "added token \"xx\" stands twice"},
       {added("97", R"("xx")"), "id 97 stands for two tokens"},
       {added("300", R"("xx")", R"(, "lstrip": true)"), "\"lstrip\" of an added token is not supported"},
       {added("300", R"("xx")", R"(, "rstrip": true)"), "\"rstrip\" of an added token is not supported"},
       {added("300", R"("xx")", R"(, "single_word": true)"),
        "\"single_word\" of an added token is not supported"}});
  CHECK(error_of_file(R"({"pre_tokenizer": {"type": "ByteLevel"}, "added_tokens": {}, "model": {}})")
            .starts_with("V: \"added_tokens\" is not a list"));
}

TEST_CASE("a tokenizer file cut anywhere is refused") {
  const std::string json = SmallBpe().json();
  for (size_t size = 0; size < json.size(); size++) {
    CAPTURE(size);
    REQUIRE(error_of_file(json.substr(0, size)).starts_with("V: "));
  }
}

TEST_CASE("a tokenizer file with one byte changed is refused, or encodes text") {
  const std::string json = SmallBpe().json();
  const std::string text = "abc bc a<end> \xc3\xa9 1\xff";
  const size_t table = json.find("\"A\": 65");  // from here on 180 entries of one form, which are left alone
  const size_t table_end = json.find(symbol_of(245));
  for (size_t i = 0; i < json.size(); i++) {
    if (i == table) i = table_end;
    for (int byte : {0x00, 0x22, 0x2c, 0x30, 0x5c, 0x7d, 0xff, json[i] ^ 1}) {
      std::string changed = json;
      changed[i] = static_cast<char>(byte);
      CAPTURE(i);
      CAPTURE(byte);
      try {
        const auto tokenizer = make_tokenizer(changed);
        REQUIRE_FALSE(tokenizer->decode(tokenizer->encode(text)).empty());
      } catch (const Error& error) {
        REQUIRE(std::string(error.what()).starts_with("V: "));
      }
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
