// Byte-pair encoding of one word: the table of merges, and the loop that applies them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace rwkv {

/// Which pairs of tokens merge to which token, and in what order: a lower rank first.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t result;
  };

  /// Room for `merges` merges, at most 2^24.
  explicit MergeTable(size_t merges);

  /// Adds the merge of the next rank. False, and nothing is added, when the pair has one already. Ids are 0
  /// to 65535.
  bool add(int32_t left, int32_t right, int32_t result);

  [[nodiscard]] std::optional<Merge> find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint32_t pair;
    uint32_t rank;
  };

  [[nodiscard]] size_t slot_of(uint32_t pair) const;

  std::vector<Slot> slots_;        ///< a hash table with linear probing, a power of two and at most half full
  std::vector<uint16_t> results_;  ///< by rank
};

/// Applies merges to a word; kept from word to word for its memory. One thread at a time may use one.
class Merger {
 public:
  explicit Merger(const MergeTable& table) : table_(table) {}

  /// Replaces the tokens of a word by what they merge to: again and again the pair of the lowest rank, the
  /// leftmost of several. Takes n log n time. At most 2^31 tokens.
  void merge(std::vector<int32_t>& tokens);

 private:
  static constexpr uint32_t none = UINT32_MAX;

  struct Symbol {
    int32_t id;  ///< -1 once it is part of the symbol before it
    uint32_t before, after;
  };

  void push_pair(uint32_t left);

  const MergeTable& table_;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;  ///< rank << 40 | index of the left symbol; some are out of date
};

}  // namespace rwkv
