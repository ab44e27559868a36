#include "core/crc32.h"

#include <array>
#include <bit>
#include <cstring>
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace rwkv {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t polynomial = 0xedb88320;  // bit-reflected, without x^32

/// tables[k][b]: what byte b does to the checksum when k zero bytes follow it.
constexpr auto tables = [] {
  std::array<std::array<uint32_t, 256>, 8> t{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ ((value & 1) != 0 ? polynomial : 0);
    t[0][byte] = value;
  }
  for (size_t k = 1; k < 8; k++) {
    for (size_t byte = 0; byte < 256; byte++) {
      uint32_t before = t[k - 1][byte];
      t[k][byte] = (before >> 8) ^ t[0][before & 0xff];
    }
  }
  return t;
}();

/// Eight bytes at a time. `state` is the checksum's complement.
uint32_t update_by_tables(uint32_t state, std::span<const std::byte> bytes) {
  for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    word ^= state;
    state = 0;
    for (size_t k = 0; k < 8; k++) state ^= tables[7 - k][(word >> (8 * k)) & 0xff];
  }
  for (std::byte byte : bytes) state = (state >> 8) ^ tables[0][(state ^ static_cast<uint32_t>(byte)) & 0xff];
  return state;
}

#ifdef __x86_64__

/// x^n modulo the polynomial, as the carry-less multiplication of reflected operands wants it: reflected, and
/// shifted by the one bit that such a product is short of.
constexpr uint64_t power_of_x(int n) {
  uint32_t value = 0x80000000;  // x^0
  for (int i = 0; i < n; i++) value = (value >> 1) ^ ((value & 1) != 0 ? polynomial : 0);
  return uint64_t{value} << 1;
}

constexpr size_t fold_width = 64;
constexpr size_t lanes = 4;

/// Folds all whole blocks of 64 bytes into one that has the same remainder, after Gopal et al., "Fast CRC
/// Computation for Generic Polynomials Using PCLMULQDQ" (Intel, 2009), and gives that block to the tables.
__attribute__((target("pclmul"))) uint32_t update_by_folding(uint32_t state,
                                                             std::span<const std::byte> bytes) {
  auto load = [](const std::byte* from) __attribute__((target("pclmul"))) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  };
  constexpr int distance = 8 * fold_width;
  const __m128i powers = _mm_set_epi64x(static_cast<int64_t>(power_of_x(distance - 32)),
                                        static_cast<int64_t>(power_of_x(distance + 32)));
  __m128i folded[lanes];
  for (size_t i = 0; i < lanes; i++) folded[i] = load(bytes.data() + 16 * i);
  folded[0] = _mm_xor_si128(folded[0], _mm_cvtsi32_si128(static_cast<int>(state)));
  for (bytes = bytes.subspan(fold_width); bytes.size() >= fold_width; bytes = bytes.subspan(fold_width)) {
    for (size_t i = 0; i < lanes; i++) {
      __m128i low = _mm_clmulepi64_si128(folded[i], powers, 0x00);
      __m128i high = _mm_clmulepi64_si128(folded[i], powers, 0x11);
      folded[i] = _mm_xor_si128(_mm_xor_si128(low, high), load(bytes.data() + 16 * i));
    }
  }
  std::array<std::byte, fold_width> block;
  std::memcpy(block.data(), folded, fold_width);
  return update_by_tables(update_by_tables(0, block), bytes);
}

#endif

uint32_t update(uint32_t state, std::span<const std::byte> bytes) {
#ifdef __x86_64__
  constexpr size_t worth_folding = 256;
  if (bytes.size() >= worth_folding && __builtin_cpu_supports("pclmul"))
    return update_by_folding(state, bytes);
#endif
  return update_by_tables(state, bytes);
}

}  // namespace

uint32_t crc32(std::span<const std::byte> bytes, uint32_t crc) { return ~update(~crc, bytes); }

}  // namespace rwkv
