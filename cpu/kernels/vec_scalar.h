// Vec: sixteen fp32 lanes, for any processor. The other vec_*.h give the same functions.
//
// max_of(limit, x) and min_of(limit, x) give x when x is NaN. fma(a, b, c) = a * b + c, here with two
// roundings. load_part and store_part touch the first n < 16 lanes only; the others are 0 and not written.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/half.h"

namespace rwkv::cpu::ISA {

constexpr int64_t tile_tokens = 4;  ///< tokens whose sums fit into registers beside the weights
constexpr int row_vectors = 4;      ///< sums of one token in registers
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
/// One line of 16 rows x 2 bf16: the first and the second input of each row.
inline void load_bf16_pairs(const void* p, Vec& first, Vec& second) {
  uint16_t bits[32];
  std::memcpy(bits, p, sizeof bits);
  first = each([&](int i) { return to_float(BFloat16{bits[2 * i]}); });
  second = each([&](int i) { return to_float(BFloat16{bits[2 * i + 1]}); });
}
/// One line of 16 rows x 4 int8.
inline void load_i8_quads(const void* p, Vec (&inputs)[4]) {
  int8_t q[64];
  std::memcpy(q, p, sizeof q);
  for (int j = 0; j < 4; j++) {
    inputs[j] = each([&](int i) { return static_cast<float>(q[4 * i + j]); });
  }
}
/// The same times a scale of at most 8 significant bits.
inline void load_scaled_quads(const void* p, Vec scale, Vec (&inputs)[4]) {
  load_i8_quads(p, inputs);
  for (Vec& v : inputs) v = mul(v, scale);
}
inline void prefetch(const void*) {}

}  // namespace rwkv::cpu::ISA
