// The 16-bit floating point types of the device, both from one template: IEEE binary16 (__half) and bfloat16.
// Conversions and arithmetic round once, to nearest even, as the device does; every NaN result is 0x7fff.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace emulator {

struct Binary16 {
  static constexpr int mantissa_bits = 10;
  static constexpr int min_exponent = -14;
  static constexpr uint16_t infinity = 0x7c00;
};
struct Brain16 {
  static constexpr int mantissa_bits = 7;
  static constexpr int min_exponent = -126;
  static constexpr uint16_t infinity = 0x7f80;
};

constexpr uint16_t canonical_nan = 0x7fff;

/// Rounds any double at once, to nearest even. Works on the 53-bit significand, so it needs no second
/// rounding through float.
template <class F>
constexpr uint16_t round_to(double value) {
  const uint64_t word = std::bit_cast<uint64_t>(value);
  const auto sign = static_cast<uint16_t>(word >> 63 != 0 ? 0x8000 : 0);
  const uint64_t magnitude = word & ~(uint64_t{1} << 63);
  if (magnitude > 0x7ff0000000000000) return canonical_nan;
  int exponent = static_cast<int>(magnitude >> 52) - 1023;
  // Less than half of the smallest number; zero and subnormal doubles are.
  if (exponent < F::min_exponent - F::mantissa_bits - 1) return sign;
  const uint64_t significand = (magnitude & 0xfffffffffffff) | uint64_t{1} << 52;
  int dropped = 52 - F::mantissa_bits;
  if (exponent < F::min_exponent) {
    dropped += F::min_exponent - exponent;
    exponent = F::min_exponent - 1;
  }
  uint64_t kept = significand >> dropped;
  const uint64_t lost = significand & ((uint64_t{1} << dropped) - 1);
  const uint64_t half = uint64_t{1} << (dropped - 1);
  if (lost > half || (lost == half && kept % 2 == 1)) kept++;
  // A normal number's leading bit adds one to its exponent field; so does a carry.
  const int field = exponent < F::min_exponent ? 0 : exponent - F::min_exponent;
  const uint64_t bits = (static_cast<uint64_t>(field) << F::mantissa_bits) + kept;
  return static_cast<uint16_t>(sign | (bits >= F::infinity ? F::infinity : bits));
}

template <class F>
constexpr float widen(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  if constexpr (F::mantissa_bits == 7) {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  } else {
    if (magnitude > F::infinity) return std::bit_cast<float>(0x7fffffffu);
    if (magnitude == F::infinity) return std::bit_cast<float>(sign | 0x7f800000u);
    if (magnitude >= 0x400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f));
  }
}

/// a + b, rounded to odd: rounding the result again to fewer bits is as rounding the exact sum once.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a, error = (a - (sum - b_part)) + (b - b_part);
  const auto word = std::bit_cast<int64_t>(sum);
  if (!std::isfinite(sum) || error == 0 || word % 2 != 0) return sum;
  return std::bit_cast<double>((error > 0) == (sum > 0) ? word + 1 : word - 1);
}

template <class F>
struct Float16 {
  uint16_t bits;

  Float16() = default;
  // Converts as the toolkit's types do.
  Float16(float value) : bits(round_to<F>(static_cast<double>(value))) {}  // NOLINT
  Float16(double value) : bits(round_to<F>(value)) {}                      // NOLINT
  Float16(int value) : bits(round_to<F>(static_cast<double>(value))) {}    // NOLINT
  operator float() const { return widen<F>(bits); }                        // NOLINT
  static Float16 from_bits(uint16_t bits) {
    Float16 value;
    value.bits = bits;
    return value;
  }
};

template <class F>
struct alignas(4) Float16x2 {
  Float16<F> x, y;
};

// The names are CUDA's. Sums, products and quotients of 16-bit numbers in double round as if exact.
// NOLINTBEGIN(bugprone-reserved-identifier)
template <class F>
Float16<F> __hadd(Float16<F> a, Float16<F> b) {
  return Float16<F>(static_cast<float>(a) + static_cast<float>(b));
}
template <class F>
Float16<F> __hsub(Float16<F> a, Float16<F> b) {
  return Float16<F>(static_cast<float>(a) - static_cast<float>(b));
}
template <class F>
Float16<F> __hmul(Float16<F> a, Float16<F> b) {
  return Float16<F>(static_cast<double>(static_cast<float>(a)) * static_cast<double>(static_cast<float>(b)));
}
template <class F>
Float16<F> __hdiv(Float16<F> a, Float16<F> b) {
  return Float16<F>(static_cast<double>(static_cast<float>(a)) / static_cast<double>(static_cast<float>(b)));
}
template <class F>
Float16<F> __hfma(Float16<F> a, Float16<F> b, Float16<F> c) {
  const double product =
      static_cast<double>(static_cast<float>(a)) * static_cast<double>(static_cast<float>(b));
  return Float16<F>(add_to_odd(product, static_cast<double>(static_cast<float>(c))));
}
template <class F>
bool __hisnan(Float16<F> a) {
  return (a.bits & 0x7fff) > F::infinity;
}
template <class F>
Float16<F> __hneg(Float16<F> a) {
  return Float16<F>::from_bits(__hisnan(a) ? canonical_nan : static_cast<uint16_t>(a.bits ^ 0x8000));
}
template <class F>
Float16<F> __habs(Float16<F> a) {
  return Float16<F>::from_bits(__hisnan(a) ? canonical_nan : static_cast<uint16_t>(a.bits & 0x7fff));
}
/// The number where the other is NaN; +0 is more than -0.
template <class F>
Float16<F> __hmax(Float16<F> a, Float16<F> b) {
  if (__hisnan(a) || __hisnan(b)) {
    return Float16<F>::from_bits(!__hisnan(a) ? a.bits : !__hisnan(b) ? b.bits : canonical_nan);
  }
  const float p = a, q = b;
  return p > q || (p == q && (a.bits & 0x8000) == 0) ? a : b;
}
template <class F>
Float16<F> __hmin(Float16<F> a, Float16<F> b) {
  if (__hisnan(a) || __hisnan(b)) {
    return Float16<F>::from_bits(!__hisnan(a) ? a.bits : !__hisnan(b) ? b.bits : canonical_nan);
  }
  const float p = a, q = b;
  return p < q || (p == q && (a.bits & 0x8000) != 0) ? a : b;
}

template <class F>
Float16x2<F> __hadd2(Float16x2<F> a, Float16x2<F> b) {
  return {__hadd(a.x, b.x), __hadd(a.y, b.y)};
}
template <class F>
Float16x2<F> __hsub2(Float16x2<F> a, Float16x2<F> b) {
  return {__hsub(a.x, b.x), __hsub(a.y, b.y)};
}
template <class F>
Float16x2<F> __hmul2(Float16x2<F> a, Float16x2<F> b) {
  return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
template <class F>
Float16x2<F> __hfma2(Float16x2<F> a, Float16x2<F> b, Float16x2<F> c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
// NOLINTEND(bugprone-reserved-identifier)

template <class F>
Float16<F> operator+(Float16<F> a, Float16<F> b) {
  return __hadd(a, b);
}
template <class F>
Float16<F> operator-(Float16<F> a, Float16<F> b) {
  return __hsub(a, b);
}
template <class F>
Float16<F> operator*(Float16<F> a, Float16<F> b) {
  return __hmul(a, b);
}
template <class F>
Float16<F> operator/(Float16<F> a, Float16<F> b) {
  return __hdiv(a, b);
}

}  // namespace emulator
