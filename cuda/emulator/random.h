// A small generator whose numbers depend on nothing but the seed.
#pragma once

#include <cstdint>

namespace emulator {

class Random {
 public:
  constexpr explicit Random(uint64_t seed = 1) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// From 0 to count - 1; count is at most 2^32.
  uint64_t below(uint64_t count) { return (next() >> 32) * count >> 32; }

 private:
  uint64_t state_;
};

}  // namespace emulator
