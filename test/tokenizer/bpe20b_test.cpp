#include "tokenizer/bpe20b.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "test/support.h"
#include "test/tokenizer/reference.h"
#include "test/tokenizer/small_vocabularies.h"
#include "tokenizer/unicode.h"

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

using Ids = std::vector<int32_t>;

const std::string never_in_utf8 = "\xc0\xc1\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff";

std::string nfc(const std::string& text) {
  std::string out;
  append_nfc(text, out);
  return out;
}

}  // namespace

TEST_CASE("20B gives the reference's ids for all its lines, and the normalized text back") {
  // unicode20b.jsonl: random texts of marks, Hangul, runs of spaces, added tokens, encoded by HuggingFace's
  // tokenizers.
  const auto lines = reference_lines("tokenizer20b.jsonl");
  const auto unicode = reference_lines("unicode20b.jsonl");
  REQUIRE(lines.size() == 284);
  REQUIRE(unicode.size() == 400);
  for (const auto* file : {&lines, &unicode}) {
    for (const ReferenceLine& line : *file) {
      CAPTURE(line.text);
      CHECK(bpe20b().encode(line.text) == line.ids);
      CHECK(bpe20b().decode(line.ids) == nfc(line.text));
    }
  }
}

TEST_CASE("20B knows its size, and ids without bytes are empty") {
  CHECK(bpe20b().kind() == TokenizerKind::bpe20b);
  CHECK(bpe20b().size() == 50277);
  CHECK(bpe20b().bytes(0) == "<|endoftext|>");
  CHECK(bpe20b().bytes(50276) == "  ");
  for (int32_t id : {-1, 50277, 65536, INT32_MAX, INT32_MIN}) CHECK(bpe20b().bytes(id).empty());
}

TEST_CASE("added tokens are one id wherever they stand, the longest first") {
  CHECK(bpe20b().encode("a<|endoftext|>b") == Ids{66, 0, 67});
  CHECK(bpe20b().encode("<|endoftext|><|padding|>") == Ids{0, 1});
  CHECK(bpe20b().encode("<|endoftext|") != Ids{0});
  CHECK(bpe20b().encode(std::string(24, ' ')) == Ids{50254});
  CHECK(bpe20b().encode(std::string(26, ' ')) == Ids{50254, 50276});
}

TEST_CASE("20B takes bytes that are not UTF-8 and gives them back") {
  CHECK(bpe20b().decode(bpe20b().encode("a\x80\xbf z\xe4\xbd \xf0\x9f")) == "a\x80\xbf z\xe4\xbd \xf0\x9f");
  std::mt19937 random(7);
  for (size_t size = 0; size < 400; size++) {
    std::string bytes;
    while (bytes.size() < size) {
      // Characters above U+02FF may change under NFC, so no lead bytes of theirs.
      const char byte = static_cast<char>(random() & 0xff);
      if (static_cast<unsigned char>(byte) < 0xcc) bytes += byte;
    }
    for (char& byte : bytes) {
      if (never_in_utf8.find(byte) != std::string::npos) byte = '\x80';
    }
    CAPTURE(size);
    CHECK(bpe20b().decode(bpe20b().encode(bytes)) == bytes);
  }
}

TEST_CASE("bytes that UTF-8 never has become U+FFFD, for 20B has no token for them") {
  for (char byte : never_in_utf8) {
    CHECK(bpe20b().decode(bpe20b().encode(std::string("a") + byte + "b")) ==
          "a\xef\xbf\xbd"
          "b");
  }
}

TEST_CASE("a vocabulary that has a token for every byte gives every byte back") {
  const auto tokenizer = make_tokenizer(SmallBpe().json());
  CHECK(tokenizer->kind() == TokenizerKind::bpe20b);
  CHECK(tokenizer->decode(tokenizer->encode(never_in_utf8 + "abc")) == never_in_utf8 + "abc");
  CHECK(tokenizer->encode("\xff") == Ids{255});
}

TEST_CASE("merges apply in their order, inside words, and never into added tokens") {
  const auto tokenizer = make_tokenizer(SmallBpe().json());
  CHECK(tokenizer->encode("abc") == Ids{257});
  CHECK(tokenizer->encode("bc abc ax") == Ids{258, ' ', 257, 259, 'x'});
  CHECK(tokenizer->encode("ab<end>c") == Ids{256, 260, 'c'});
  CHECK(tokenizer->encode("a1b") == Ids{'a', '1', 'b'});
  CHECK(tokenizer->decode(Ids{259, 260, 256, 999, -1}) == " a<end>ab");
}

TEST_CASE("20B encodes a line of 10 MB without spaces") {
  std::string same;
  same.resize(10'000'000, 'a');
  CHECK(bpe20b().decode(bpe20b().encode(same)) == same);
  std::mt19937 random(8);
  std::string letters;
  while (letters.size() < 200'000) letters += static_cast<char>('a' + random() % 26);
  CHECK(bpe20b().decode(bpe20b().encode(letters)) == letters);
}

}  // namespace rwkv::test

TEST_SUITE_END();
