#include "tokenizer/trie.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <optional>

namespace rwkv {

namespace {

/// A set of numbers below 256.
using Set256 = std::array<uint64_t, 4>;

/// Exchanges bit i with bit i ^ mask, for every i.
uint64_t exchange_bits(uint64_t bits, unsigned mask) {
  const auto exchange = [&bits, mask](unsigned distance, uint64_t lower) {
    const uint64_t exchanged = (bits & lower) << distance | (bits >> distance & lower);
    bits = (mask & distance) != 0 ? exchanged : bits;
  };
  exchange(1, 0x5555555555555555);
  exchange(2, 0x3333333333333333);
  exchange(4, 0x0f0f0f0f0f0f0f0f);
  exchange(8, 0x00ff00ff00ff00ff);
  exchange(16, 0x0000ffff0000ffff);
  exchange(32, 0x00000000ffffffff);
  return bits;
}

void remove(Set256& set, unsigned number) { set[number >> 6] &= ~(uint64_t{1} << (number & 63)); }

/// 256 units: the children of one node always lie in one block.
struct Block {
  Set256 free;
  /// Places that are no node's base yet. Two nodes with one base would take each other's children for their
  /// own.
  Set256 free_bases;
};

}  // namespace

class TrieBuilder {
 public:
  explicit TrieBuilder(std::span<const Trie::Key> keys) {
    nodes_.reserve(2 * keys.size() + 1);
    add_nodes(keys);
  }

  void build(Trie& trie) {
    add_block();
    remove(blocks_[0].free_bases, 0);  // base 0 means "no children"
    place_siblings();
    place_only_children();
    for (const Node& node : std::span(nodes_).subspan(1)) {
      units_[node.unit] = {node.base, node.value, node.label};
    }
    trie.root_base_ = nodes_[0].base;
    trie.units_ = std::move(units_);
  }

 private:
  /// A node of the trie as linked lists, where index 0, the root's, means none.
  struct Node {
    uint32_t first_child = 0;
    uint32_t next_sibling = 0;
    uint32_t unit = 0;
    uint32_t base = 0;
    uint16_t value = 0;
    unsigned char label = 0;
  };

  /// Grows the linked trie: of each key only what it does not share with the key before is new.
  void add_nodes(std::span<const Trie::Key> keys) {
    nodes_.resize(1);
    std::vector<uint32_t> path{0};  // the nodes of the key before, from the root
    std::string_view before;
    for (const Trie::Key& key : keys) {
      const size_t limit = std::min(before.size(), key.bytes.size());
      size_t shared = 0;
      while (shared < limit && before[shared] == key.bytes[shared]) shared++;
      uint32_t elder = path.size() > shared + 1 ? path[shared + 1] : 0;
      path.resize(shared + 1);
      for (size_t depth = shared; depth < key.bytes.size(); depth++) {
        const auto index = static_cast<uint32_t>(nodes_.size());
        (elder != 0 ? nodes_[elder].next_sibling : nodes_[path.back()].first_child) = index;
        nodes_.push_back({});
        nodes_.back().label = static_cast<unsigned char>(key.bytes[depth]);
        path.push_back(index);
        elder = 0;
      }
      nodes_.back().value = key.value;
      before = key.bytes;
    }
  }

  void add_block() {
    constexpr uint64_t all = ~uint64_t{0};
    blocks_.push_back({{all, all, all, all}, {all, all, all, all}});
    units_.resize(units_.size() + 256);
  }

  /// Places the children of all nodes that have several, level by level: the short prefixes that every text
  /// visits lie together at the front.
  void place_siblings() {
    std::vector<uint32_t> parents{0};
    for (size_t i = 0; i < parents.size(); i++) {
      Node& parent = nodes_[parents[i]];
      labels_.clear();
      for (uint32_t child = parent.first_child; child != 0; child = nodes_[child].next_sibling) {
        labels_.push_back(nodes_[child].label);
        if (nodes_[child].first_child != 0) parents.push_back(child);
      }
      if (labels_.size() < 2) continue;
      std::optional<uint32_t> base = claim_base(blocks_.size() - 1);
      if (!base) {
        add_block();
        base = claim_base(blocks_.size() - 1);
      }
      parent.base = *base;
      for (uint32_t child = parent.first_child; child != 0; child = nodes_[child].next_sibling) {
        nodes_[child].unit = parent.base ^ nodes_[child].label;
      }
    }
  }

  /// Places every child that has no siblings into what the others left free. A chain of them, such as the end
  /// of a long word, gets places close together.
  void place_only_children() {
    size_t block = 0;
    for (Node& parent : nodes_) {
      if (parent.base != 0 || parent.first_child == 0) continue;
      Node& child = nodes_[parent.first_child];
      labels_.assign(1, child.label);
      std::optional<uint32_t> base = claim_base(block);
      while (!base) {
        if (++block == blocks_.size()) add_block();
        base = claim_base(block);
      }
      parent.base = *base;
      child.unit = parent.base ^ child.label;
    }
  }

  /// A base inside one block for which the places of all labels_ are free, if there is one; takes these
  /// places.
  std::optional<uint32_t> claim_base(size_t index) {
    Block& block = blocks_[index];
    for (unsigned word = 0; word < 4; word++) {
      // 64 bases at once: one fits where base ^ label is free for every label.
      uint64_t fits = block.free_bases[word];
      for (size_t i = 0; fits != 0 && i < labels_.size(); i++) {
        const uint64_t free = block.free[word ^ labels_[i] >> 6];
        fits &= free == 0 ? 0 : exchange_bits(free, labels_[i] & 63);
      }
      if (fits == 0) continue;
      const unsigned base = word * 64 + static_cast<unsigned>(std::countr_zero(fits));
      remove(block.free_bases, base);
      for (unsigned label : labels_) remove(block.free, base ^ label);
      return static_cast<uint32_t>(index * 256 + base);
    }
    return std::nullopt;
  }

  std::vector<Node> nodes_;
  std::vector<Block> blocks_;
  std::vector<Trie::Unit> units_;
  std::vector<unsigned char> labels_;
};

Trie::Trie(std::span<const Key> keys) { TrieBuilder(keys).build(*this); }

}  // namespace rwkv
