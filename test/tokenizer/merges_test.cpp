#include "tokenizer/merges.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

TEST_SUITE_BEGIN("tokenizer");

namespace rwkv::test {

namespace {

/// Byte-pair encoding as its definition says it: the leftmost pair of the lowest rank, until there is none.
std::vector<int32_t> naive_merge(const MergeTable& table, std::vector<int32_t> tokens) {
  while (true) {
    size_t best = tokens.size();
    MergeTable::Merge best_merge{UINT32_MAX, 0};
    for (size_t i = 0; i + 1 < tokens.size(); i++) {
      const auto merge = table.find(tokens[i], tokens[i + 1]);
      if (merge && merge->rank < best_merge.rank) {
        best = i;
        best_merge = *merge;
      }
    }
    if (best == tokens.size()) return tokens;
    tokens[best] = best_merge.result;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("a merge table knows its pairs, their order and no other pair") {
  MergeTable table(3);
  CHECK(table.add(1, 2, 3));
  CHECK(table.add(65535, 65535, 65535));
  CHECK_FALSE(table.add(1, 2, 4));
  CHECK(table.add(0, 0, 9));
  CHECK(table.find(1, 2)->rank == 0);
  CHECK(table.find(1, 2)->result == 3);
  CHECK(table.find(65535, 65535)->rank == 1);
  CHECK(table.find(65535, 65535)->result == 65535);
  CHECK(table.find(0, 0)->rank == 2);
  CHECK_FALSE(table.find(2, 1));
  CHECK_FALSE(MergeTable(0).find(0, 0));
}

TEST_CASE("merging equals its definition for random tables and words") {
  std::mt19937 random(5);
  for (int round = 0; round < 300; round++) {
    // Random strings of few letters stand for tokens; a merge joins two of them, in no order of their making.
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::unordered_map<std::string, int32_t> ids = {{"a", 0}, {"b", 1}, {"c", 2}};
    std::vector<std::vector<int32_t>> merges;
    for (int i = 0; i < 40; i++) {
      const auto left = static_cast<int32_t>(random() % tokens.size());
      const auto right = static_cast<int32_t>(random() % tokens.size());
      const std::string joined = tokens[static_cast<size_t>(left)] + tokens[static_cast<size_t>(right)];
      const auto [place, is_new] = ids.emplace(joined, static_cast<int32_t>(tokens.size()));
      if (is_new) tokens.push_back(joined);
      merges.push_back({left, right, place->second});
    }
    if (round % 2 == 1) std::shuffle(merges.begin(), merges.end(), random);
    MergeTable table(merges.size());
    for (const auto& merge : merges) table.add(merge[0], merge[1], merge[2]);
    Merger merger(table);
    for (int i = 0; i < 30; i++) {
      std::vector<int32_t> word(random() % 40);
      for (int32_t& token : word) token = static_cast<int32_t>(random() % (i % 3 + 1));
      const std::vector<int32_t> expected = naive_merge(table, word);
      merger.merge(word);
      REQUIRE(word == expected);
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
