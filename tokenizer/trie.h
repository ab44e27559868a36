// Longest match over a set of byte strings.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace rwkv {

/// A double-array trie: one array of 8-byte units, of which the children of a node take the places `base ^
/// byte`. A step is one load and one compare; the units of the World vocabulary are 1 MB.
class Trie {
 public:
  struct Key {
    std::string_view bytes;  ///< not empty
    uint16_t value = 0;      ///< not 0
  };
  struct Match {
    uint16_t value = 0;  ///< 0 where no key matches
    uint32_t length = 0;
  };

  /// The keys in ascending order of their bytes (as unsigned), no two with the same bytes.
  explicit Trie(std::span<const Key> keys);

  /// The longest key that begins at the front of `text`.
  [[nodiscard]] Match longest(std::string_view text) const {
    Match match;
    uint32_t base = root_base_;
    for (uint32_t i = 0; i < text.size(); i++) {
      const auto byte = static_cast<unsigned char>(text[i]);
      const Unit unit = units_[base ^ byte];
      if (unit.label != byte) break;
      base = unit.base;
      if (unit.value != 0) match = {unit.value, i + 1};
    }
    return match;
  }

 private:
  friend class TrieBuilder;

  static constexpr uint16_t no_label = 256;

  struct Unit {
    uint32_t base = 0;  ///< of the children; 0, which no node owns, where there are none
    uint16_t value = 0;
    uint16_t label = no_label;  ///< the byte that leads here
  };

  std::vector<Unit> units_;  ///< a multiple of 256, so that base ^ byte is always inside
  uint32_t root_base_ = 0;
};

}  // namespace rwkv
