#include "tokenizer/trie.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

struct UnsignedLess {
  bool operator()(std::string_view a, std::string_view b) const { return a < b; }
};

using Keys = std::map<std::string, uint16_t, UnsignedLess>;

Trie make_trie(const Keys& keys) {
  std::vector<Trie::Key> list;
  for (const auto& [bytes, value] : keys) list.push_back({bytes, value});
  return Trie(list);
}

Trie::Match naive_longest(const Keys& keys, std::string_view text) {
  Trie::Match match;
  for (const auto& [bytes, value] : keys) {
    if (text.starts_with(bytes) && bytes.size() > match.length) {
      match = {value, static_cast<uint32_t>(bytes.size())};
    }
  }
  return match;
}

void check_equal(const Trie& trie, const Keys& keys, const std::string& text) {
  const Trie::Match expected = naive_longest(keys, text);
  const Trie::Match match = trie.longest(text);
  CAPTURE(text);
  REQUIRE(match.value == expected.value);
  REQUIRE(match.length == expected.length);
}

}  // namespace

TEST_CASE("an empty trie matches nothing") {
  const Trie trie = make_trie({});
  for (int byte = 0; byte < 256; byte++)
    CHECK(trie.longest(std::string(2, static_cast<char>(byte))).value == 0);
  CHECK(trie.longest("").value == 0);
}

TEST_CASE("a trie finds what trying every key finds, for few and for many letters") {
  std::mt19937 random(4);
  for (uint32_t letters : {1u, 2u, 3u, 16u, 256u}) {
    for (int round = 0; round < 12; round++) {
      const auto text_of = [&](uint32_t length) {
        std::string text;
        for (; length > 0; length--) text += static_cast<char>(random() % letters * (letters < 256 ? 85 : 1));
        return text;
      };
      Keys keys;
      for (uint32_t n = random() % 400; n > 0; n--)
        keys[text_of(1 + random() % 8)] = static_cast<uint16_t>(n);
      const Trie trie = make_trie(keys);
      for (int i = 0; i < 200; i++) check_equal(trie, keys, text_of(random() % 12));
      for (const auto& [bytes, value] : keys) check_equal(trie, keys, bytes);
    }
  }
}

TEST_CASE("a node may have all 256 children, and a key may be long") {
  Keys keys;
  for (int byte = 0; byte < 256; byte++) {
    keys[std::string(1, static_cast<char>(byte))] = static_cast<uint16_t>(byte + 1);
    keys[std::string("xx") + static_cast<char>(byte)] = static_cast<uint16_t>(byte + 1001);
  }
  keys[std::string(1000, 'x')] = 65535;
  const Trie trie = make_trie(keys);
  for (const auto& [bytes, value] : keys) check_equal(trie, keys, bytes + "y");
  CHECK(trie.longest(std::string(1000, 'x')).length == 1000);
  CHECK(trie.longest(std::string(999, 'x')).length == 3);
}

}  // namespace rwkv::test

TEST_SUITE_END();
