#include "tokenizer/world.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "test/support.h"
#include "test/tokenizer/reference.h"
#include "test/tokenizer/small_vocabularies.h"

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

/// Longest match as its definition says it: try every length, the longest first.
class NaiveTokenizer {
 public:
  explicit NaiveTokenizer(const Tokenizer& tokenizer) {
    for (int32_t id = 0; id < tokenizer.size(); id++) {
      const std::string bytes(tokenizer.bytes(id));
      if (bytes.empty()) continue;
      ids_[bytes] = id;
      longest_ = std::max(longest_, bytes.size());
    }
  }

  [[nodiscard]] std::vector<int32_t> encode(const std::string& text) const {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size();) {
      for (size_t length = std::min(longest_, text.size() - i);; length--) {
        const auto found = ids_.find(text.substr(i, length));
        if (found == ids_.end()) continue;
        ids.push_back(found->second);
        i += length;
        break;
      }
    }
    return ids;
  }

 private:
  std::unordered_map<std::string, int32_t> ids_;
  size_t longest_ = 0;
};

std::string random_bytes(std::mt19937& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() & 0xff);
  return bytes;
}

}  // namespace

TEST_CASE("World gives the reference's ids for all its lines, and the text back") {
  const auto lines = reference_lines("tokenizer.jsonl");
  REQUIRE(lines.size() == 324);
  for (const ReferenceLine& line : lines) {
    CAPTURE(line.text);
    CHECK(world().encode(line.text) == line.ids);
    CHECK(world().decode(line.ids) == line.text);
  }
}

TEST_CASE("World knows its size, and ids without bytes are empty") {
  CHECK(world().kind() == TokenizerKind::world);
  CHECK(world().size() == 65530);
  CHECK(world().bytes(261) == "\n\n");
  for (int32_t id : {0, -1, -65536, 65530, 65535, 65536, INT32_MAX, INT32_MIN}) {
    CAPTURE(id);
    CHECK(world().bytes(id).empty());
  }
  CHECK(world().decode(std::vector<int32_t>{33, 0, 65535, -7, 34}) == " !");
}

TEST_CASE("encode appends and keeps what is there") {
  std::vector<int32_t> ids = {7};
  world().encode("\n\n", ids);
  world().encode("", ids);
  CHECK(ids == std::vector<int32_t>{7, 261});
}

TEST_CASE("World takes any bytes and gives them back") {
  std::mt19937 random(1);
  for (size_t size = 0; size < 600; size++) {
    const std::string bytes = random_bytes(random, size);
    CHECK(world().decode(world().encode(bytes)) == bytes);
  }
}

TEST_CASE("World equals a naive longest match on texts made of its own tokens and their beginnings") {
  const NaiveTokenizer naive(world());
  std::mt19937 random(2);
  for (int i = 0; i < 1500; i++) {
    std::string text;
    for (uint32_t n = random() % 12; n > 0; n--) {
      const std::string_view token = world().bytes(static_cast<int32_t>(random() % 65530));
      text += random() % 3 == 0 ? token.substr(0, random() % (token.size() + 1)) : token;
    }
    CAPTURE(text);
    CHECK(world().encode(text) == naive.encode(text));
  }
}

TEST_CASE("every World token alone is one id") {
  int32_t wrong = 0;
  for (int32_t id = 1; id < world().size(); id++) {
    if (world().encode(world().bytes(id)) != std::vector<int32_t>{id}) wrong++;
  }
  CHECK(wrong == 0);
}

TEST_CASE("World encodes a line of 10 MB") {
  std::string line;
  while (line.size() < 10'000'000) line += "no space \xe4\xbd\xa0\xff";
  CHECK(world().decode(world().encode(line)) == line);
  std::string same;
  same.resize(10'000'000, 'a');
  CHECK(world().decode(world().encode(same)) == same);
}

TEST_CASE("many threads may use one tokenizer") {
  const auto lines = reference_lines("tokenizer.jsonl");
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& mistakes : wrong) {
    threads.emplace_back([&lines, &mistakes] {
      for (const ReferenceLine& line : lines) {
        if (world().encode(line.text) != line.ids ||
            bpe20b().encode(line.text).empty() != line.text.empty()) {
          mistakes++;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("the demo model's vocabulary is one of World's form") {
  const auto tokenizer = make_tokenizer(read_file(data_path("../../apps/demo/guide-2.5m.vocab.txt")), "V");
  CHECK(tokenizer->kind() == TokenizerKind::world);
  CHECK(tokenizer->size() == 1500);
  const std::string text = "what does cuda fp16i8 *20+ do? \xff\n\n";
  CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
}

TEST_CASE("a user's special tokens win over shorter ones") {
  const auto tokenizer = make_tokenizer(single_byte_lines() + "65535 '<|user|>' 8\n300 '<|us' 4");
  CHECK(tokenizer->encode("<|user|><|use") == std::vector<int32_t>{65535, 300, 'e' + 1});
  CHECK(tokenizer->size() == 65536);
  CHECK(tokenizer->bytes(400).empty());
}

}  // namespace rwkv::test

TEST_SUITE_END();
