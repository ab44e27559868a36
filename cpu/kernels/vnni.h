// What the sets with VNNI share: it multiplies bytes, of which one side has no sign.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rwkv::cpu::ISA {

/// Four bytes, to be broadcast (by all sets with vectors).
inline int32_t quad_at(const std::byte* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return bits;
}

/// Four 16-bit integers as 256 times a byte plus another one, both with a sign.
inline void arrange_in_bytes(const int32_t* x, std::byte* out) {
  for (int i = 0; i < 4; i++) {
    const int32_t high = (x[i] + 128) >> 8;
    out[i] = static_cast<std::byte>(high);
    out[4 + i] = static_cast<std::byte>(x[i] - high * 256);
  }
}

}  // namespace rwkv::cpu::ISA
