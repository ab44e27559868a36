// Four inputs of integers, which meet a line of weights in eight bytes: what the sets with vectors share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rwkv::cpu::ISA {

inline int32_t quad_at(const std::byte* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return bits;
}

#if RWKV_ISA == RWKV_ISA_avxvnni || RWKV_ISA >= RWKV_ISA_avx512vnni
/// VNNI multiplies bytes: an input x is 256 times the upper byte of x + 128, and the lower byte of x, both
/// with a sign. x + 128 comes in the upper half of x.
constexpr bool bytes_of_inputs = true;
constexpr std::array<int8_t, 16> quad_order = {3, 7, 11, 15, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1};
#else
/// Words: inputs 0 and 2, then 1 and 3.
constexpr bool bytes_of_inputs = false;
constexpr std::array<int8_t, 16> quad_order = {0, 1, 8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1};
#endif

}  // namespace rwkv::cpu::ISA
