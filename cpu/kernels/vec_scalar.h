// Vec: sixteen fp32 lanes, for any processor. The other vec_*.h give the same functions.
//
// max_of(limit, x) and min_of(limit, x) give x when x is NaN. fma(a, b, c) = a * b + c, here with two
// roundings. load_part and store_part touch the first n < 16 lanes only; the others are 0 and not written.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "ops/quantize.h"

namespace rwkv::cpu::ISA {

constexpr int64_t tile_tokens = 4;  ///< tokens whose sums fit into registers beside the weights
constexpr int64_t tile_blocks = 1;  ///< blocks of 16 outputs that go with them

struct Vec {
  float lane[16];
};

template <class F>
inline Vec each(F f) {
  Vec v;
  for (int i = 0; i < 16; i++) v.lane[i] = f(i);
  return v;
}

inline Vec set1(float x) {
  return each([&](int) { return x; });
}
inline Vec load(const float* p) {
  Vec v;
  std::memcpy(v.lane, p, sizeof v.lane);
  return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, v.lane, sizeof v.lane); }
inline Vec load_part(const float* p, int64_t n) {
  return each([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline void store_part(float* p, Vec v, int64_t n) { std::memcpy(p, v.lane, static_cast<size_t>(n) * 4); }

inline Vec add(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec sub(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec mul(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec div(Vec a, Vec b) {
  return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
inline Vec max_of(Vec limit, Vec x) {
  return each([&](int i) { return limit.lane[i] > x.lane[i] ? limit.lane[i] : x.lane[i]; });
}
inline Vec min_of(Vec limit, Vec x) {
  return each([&](int i) { return limit.lane[i] < x.lane[i] ? limit.lane[i] : x.lane[i]; });
}
inline Vec round_nearest(Vec a) {
  return each([&](int i) { return std::nearbyint(a.lane[i]); });
}
/// 2^n for whole n in [-126, 127].
inline Vec power_of_two(Vec n) {
  return each([&](int i) {
    int32_t exponent = n.lane[i] == n.lane[i] ? static_cast<int32_t>(n.lane[i]) : 0;
    return std::bit_cast<float>((exponent + 127) << 23);
  });
}
/// |x| < limit ? a : b
inline Vec select_small(Vec x, float limit, Vec a, Vec b) {
  return each([&](int i) { return std::abs(x.lane[i]) < limit ? a.lane[i] : b.lane[i]; });
}
/// Bit i: lane i >= limit.
inline uint32_t at_least(Vec x, float limit) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; i++) mask |= (x.lane[i] >= limit ? 1u : 0u) << i;
  return mask;
}
/// Bit i: lane i is not zero.
inline uint32_t nonzero_lanes(Vec x) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; i++) mask |= (x.lane[i] != 0 ? 1u : 0u) << i;
  return mask;
}
/// Writes the lanes whose bits are set, and first + their numbers, one after the other, and returns how many
/// they are. What is behind them among sixteen elements may be written too.
inline int64_t store_chosen(Vec x, uint32_t lanes, int64_t first, float* values, uint16_t* indices) {
  int64_t count = 0;
  for (int64_t i = 0; i < 16; i++) {
    values[count] = x.lane[i];
    indices[count] = static_cast<uint16_t>(first + i);
    count += lanes >> i & 1;
  }
  return count;
}
/// to[i * count + r] = rows[r].lane[i] for the first `count` <= tile_tokens of most_columns rows, all of
/// which are read.
constexpr int most_columns = tile_tokens;
inline void store_columns(float* to, const Vec (&rows)[most_columns], int64_t count) {
  for (int i = 0; i < 16; i++) {
    for (int64_t r = 0; r < count; r++) *to++ = rows[r].lane[i];
  }
}
inline float sum(Vec v) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) v.lane[i] += v.lane[i + width];
  }
  return v.lane[0];
}

/// Sixteen neighbouring 16-bit or 8-bit elements.
inline Vec load_f16(const void* p) {
  uint16_t bits[16];
  std::memcpy(bits, p, sizeof bits);
  return each([&](int i) { return to_float(Half{bits[i]}); });
}
inline Vec load_bf16(const void* p) {
  uint16_t bits[16];
  std::memcpy(bits, p, sizeof bits);
  return each([&](int i) { return to_float(BFloat16{bits[i]}); });
}
inline Vec load_i8(const void* p) {
  int8_t q[16];
  std::memcpy(q, p, sizeof q);
  return each([&](int i) { return static_cast<float>(q[i]); });
}
/// Rounded as to_bfloat16() does, as floats and as sixteen neighbouring elements.
inline Vec round_to_bf16(Vec v) {
  return each([&](int i) { return to_float(to_bfloat16(v.lane[i])); });
}
inline void store_bf16(void* p, Vec v) {
  uint16_t bits[16];
  for (int i = 0; i < 16; i++) bits[i] = to_bfloat16(v.lane[i]).bits;
  std::memcpy(p, bits, sizeof bits);
}
/// Sixteen neighbouring int4: integers, not codes.
inline Vec load_i4(const void* p) {
  uint8_t bytes[8];
  std::memcpy(bytes, p, sizeof bytes);
  return each([&](int i) { return static_cast<float>(int4_levels[bytes[i / 2] >> i % 2 * 4 & 15]); });
}
/// Sixty-four neighbouring int4: lane i of v[k] is number 8 i + 2 k, lane 8 + i the one after it, i < 8.
inline void load_i4_apart(const void* p, Vec (&v)[4]) {
  uint8_t bytes[32];
  std::memcpy(bytes, p, sizeof bytes);
  for (int k = 0; k < 4; k++)
    v[k] =
        each([&](int i) { return static_cast<float>(int4_levels[bytes[i % 8 * 4 + k] >> i / 8 * 4 & 15]); });
}
/// Four lanes of the first, four of the second, and again.
inline Vec alternate_fours(float first, float second) {
  return each([&](int i) { return i / 4 % 2 == 0 ? first : second; });
}

/// One line: 16 rows x 4 integers, or x 2 bf16.
struct Bytes {
  int8_t q[64];
};
inline Bytes load_bytes(const void* p) {
  Bytes line;
  std::memcpy(line.q, p, sizeof line.q);
  return line;
}
/// A line of 16 rows x 2 bf16: the first and the second input of each row.
inline void widen_pairs(const Bytes& line, Vec& first, Vec& second) {
  uint16_t bits[32];
  std::memcpy(bits, line.q, sizeof bits);
  first = each([&](int i) { return to_float(BFloat16{bits[2 * i]}); });
  second = each([&](int i) { return to_float(BFloat16{bits[2 * i + 1]}); });
}
/// The line that widen_pairs() makes these of: numbers that bf16 holds.
inline Bytes join_pairs(Vec first, Vec second) {
  Bytes line;
  for (int i = 0; i < 16; i++) {
    const uint32_t pair =
        std::bit_cast<uint32_t>(first.lane[i]) >> 16 | std::bit_cast<uint32_t>(second.lane[i]);
    std::memcpy(line.q + 4 * i, &pair, sizeof pair);
  }
  return line;
}
inline void store_bytes(void* p, const Bytes& line) { std::memcpy(p, line.q, sizeof line.q); }
/// From 64 bytes of int4: the line of their lower halves and that of the upper ones.
inline void load_int4(const void* p, Bytes (&lines)[2]) {
  uint8_t bytes[64];
  std::memcpy(bytes, p, sizeof bytes);
  for (int i = 0; i < 64; i++) {
    lines[0].q[i] = int4_levels[bytes[i] & 15];
    lines[1].q[i] = int4_levels[bytes[i] >> 4];
  }
}
/// Sixteen bytes that decode_upper() looks up.
struct CodeTable {
  const uint8_t* upper;
};
inline CodeTable load_code_table(const void* p) { return {static_cast<const uint8_t*>(p)}; }
/// For each of a group's codes (ops/coding.h), of which the lower halves belong to half 0.
inline Bytes decode_upper(const Bytes& codes, int half, const CodeTable& table) {
  Bytes upper;
  for (int i = 0; i < 64; i++) upper.q[i] = static_cast<int8_t>(table.upper[codes.q[i] >> half * 4 & 15]);
  return upper;
}
inline Bytes replace_byte(Bytes line, int place, uint8_t value) {
  line.q[place] = static_cast<int8_t>(value);
  return line;
}
/// Two lines of bf16 from their bytes: eight of the one and eight of the other in turns.
inline void join_bytes(const Bytes& lower, const Bytes& upper, Bytes (&lines)[2]) {
  for (int i = 0; i < 64; i++) {
    int8_t* element = lines[i / 8 % 2].q + (i / 16 * 8 + i % 8) * 2;
    element[0] = lower.q[i];
    element[1] = upper.q[i];
  }
}
/// The four integers of each row, as they are or times a scale of at most 8 significant bits.
inline void widen(const Bytes& line, Vec (&inputs)[4]) {
  for (int j = 0; j < 4; j++) {
    inputs[j] = each([&](int i) { return static_cast<float>(line.q[4 * i + j]); });
  }
}
inline void widen(const Bytes& line, Vec scale, Vec (&inputs)[4]) {
  widen(line, inputs);
  for (Vec& v : inputs) v = mul(v, scale);
}

/// The largest magnitude of both; infinity or NaN when a lane is.
inline float largest_magnitude(Vec a, Vec b) {
  uint32_t largest = 0;
  for (float lane : a.lane) largest = std::max(largest, std::bit_cast<uint32_t>(lane) & 0x7fffffffu);
  for (float lane : b.lane) largest = std::max(largest, std::bit_cast<uint32_t>(lane) & 0x7fffffffu);
  return std::bit_cast<float>(largest);
}
/// Sixteen inputs of at most 16 bits, rounded to nearest, as four times eight bytes for add_products().
inline void arrange_inputs(Vec inputs, std::byte* out) {
  for (int i = 0; i < 16; i++) {
    const auto x = static_cast<int16_t>(std::nearbyint(inputs.lane[i]));
    std::memcpy(out + i * 2, &x, sizeof x);
  }
}

/// Exact sums, for 16 rows, of products of integers with 16-bit inputs.
struct IntegerSums {
  int32_t lane[16];
};
inline IntegerSums no_sums(int32_t) { return {}; }
/// input: the line's four inputs as arrange_inputs() leaves them.
inline void add_products(IntegerSums& sums, const Bytes& line, const std::byte* input) {
  int16_t x[4];
  std::memcpy(x, input, sizeof x);
  for (int i = 0; i < 64; i++) sums.lane[i / 4] += line.q[i] * x[i % 4];
}
inline Vec to_vec(const IntegerSums& sums) {
  return each([&](int i) { return static_cast<float>(sums.lane[i]); });
}

/// Into the first-level cache, or only into the second, which waits for memory with more lines at once.
inline void prefetch(const void*) {}
inline void prefetch_l2(const void*) {}
inline void prefetch_to_write(const void*) {}
inline void prefetch_once(const void*) {}

}  // namespace rwkv::cpu::ISA
