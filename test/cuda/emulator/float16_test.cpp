// 16-bit numbers against an oracle that searches the nearest among all of them.
#include "cuda/emulator/float16.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <doctest/doctest.h>

#include <bit>
#include <cmath>

#include "cuda/emulator/random.h"

namespace rwkv::test::emulated {

namespace {

using emulator::Binary16;
using emulator::Brain16;
using emulator::Float16;

// The value of finite bits; what follows the largest number counts as if the exponents went on.
template <class F>
double value_of(uint32_t magnitude) {
  const int field = static_cast<int>(magnitude >> F::mantissa_bits);
  const auto mantissa = static_cast<double>(magnitude & ((1u << F::mantissa_bits) - 1));
  const double unit = std::ldexp(1.0, F::min_exponent - F::mantissa_bits);
  if (field == 0) return mantissa * unit;
  return std::ldexp((mantissa + (1 << F::mantissa_bits)) * unit, field - 1);
}

// The nearest number, the even one of two as near: by bisection over all magnitudes.
template <class F>
uint16_t nearest(long double value) {
  if (std::isnan(value)) return 0x7fff;
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const long double magnitude = std::fabs(value);
  uint32_t below = 0, above = F::infinity;
  if (magnitude >= static_cast<long double>(value_of<F>(above))) return sign | F::infinity;
  while (above - below > 1) {
    const uint32_t middle = (below + above) / 2;
    (static_cast<long double>(value_of<F>(middle)) <= magnitude ? below : above) = middle;
  }
  const long double down = magnitude - static_cast<long double>(value_of<F>(below));
  const long double up = static_cast<long double>(value_of<F>(above)) - magnitude;
  return static_cast<uint16_t>(sign | (down < up || (down == up && below % 2 == 0) ? below : above));
}

// Numbers whose sums and products often lie near a middle between two others.
template <class F>
Float16<F> draw(emulator::Random& random) {
  const uint64_t word = random.next();
  const uint64_t bits = word % 3 == 0 ? word >> 8 & word >> 24 : word >> 8;
  return Float16<F>::from_bits(static_cast<uint16_t>(bits));
}

template <class F>
void check_arithmetic() {
  emulator::Random random(11);
  int wrong = 0;
  for (int i = 0; i < 100000; i++) {
    const auto a = draw<F>(random), b = draw<F>(random), c = draw<F>(random);
    const auto x = static_cast<long double>(static_cast<float>(a)),
               y = static_cast<long double>(static_cast<float>(b));
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    // 64 bits of significand hold the product; the sum where they do not is decided by its larger part.
    wrong += __hmul(a, b).bits != nearest<F>(x * y);
    if (std::fabs(x) < std::ldexp(1.0L, 40) * std::fabs(y) &&
        std::fabs(y) < std::ldexp(1.0L, 40) * std::fabs(x)) {
      wrong += (a + b).bits != nearest<F>(x + y);
      wrong += (a - b).bits != nearest<F>(x - y);
    }
    const auto z = static_cast<long double>(static_cast<float>(c));
    const long double product = x * y;
    const bool exact = std::isfinite(z) && std::fabs(product) < std::ldexp(1.0L, 30) * std::fabs(z) &&
                       std::fabs(z) < std::ldexp(1.0L, 30) * std::fabs(product);
    if (exact) wrong += __hfma(a, b, c).bits != nearest<F>(product + z);
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("16-bit numbers have their values, and round back to themselves") {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x8000; bits++) {
    const auto half = __ushort_as_half(static_cast<uint16_t>(bits));
    const auto brain = __ushort_as_bfloat16(static_cast<uint16_t>(bits));
    if (bits < Binary16::infinity) {
      wrong += static_cast<double>(__half2float(half)) != value_of<Binary16>(bits);
      wrong += __float2half(-__half2float(half)).bits != (bits | 0x8000);
    }
    if (bits < Brain16::infinity) {
      wrong += static_cast<double>(__bfloat162float(brain)) != value_of<Brain16>(bits);
      wrong += __float2bfloat16(-__bfloat162float(brain)).bits != (bits | 0x8000);
    }
    wrong += std::isnan(__half2float(half)) != (bits > Binary16::infinity);
    wrong += __hisnan(half) != (bits > Binary16::infinity);
    wrong += std::isnan(__bfloat162float(brain)) != (bits > Brain16::infinity);
  }
  CHECK(wrong == 0);
  CHECK(__float2half(NAN).bits == 0x7fff);
  CHECK(__float2half(65520.0f).bits == 0x7c00);
  CHECK(__float2half(65519.0f).bits == 0x7bff);
}

TEST_CASE("any double rounds to the nearest 16-bit number at once") {
  emulator::Random random(7);
  int wrong = 0;
  for (int i = 0; i < 200000; i++) {
    const uint64_t sparse = random.next() & random.next() & random.next();
    const uint64_t exponent = i % 2 == 0 ? 1023 - 30 + random.below(50) : 1023 - 140 + random.below(270);
    const auto value =
        std::bit_cast<double>((exponent << 52) | (sparse & 0xfffffffffffff) | (sparse >> 63 << 63));
    wrong += __double2half(value).bits != nearest<Binary16>(static_cast<long double>(value));
    wrong += __double2bfloat16(value).bits != nearest<Brain16>(static_cast<long double>(value));
  }
  CHECK(wrong == 0);
}

TEST_CASE("16-bit sums, products and fused products are rounded once") {
  check_arithmetic<Binary16>();
  check_arithmetic<Brain16>();
  // 1.0078125^2 = 1.01568603515625, a middle of bfloat16 but for the addend far below it.
  const auto a = __float2bfloat16(1.0078125f), tiny = __ushort_as_bfloat16(1);
  const auto middle = __float2bfloat16(1.5f), unit = __float2bfloat16(1.0f + 1.0f / 128);
  CHECK(__hfma(a, a, __hneg(tiny)).bits == nearest<Brain16>(1.01568603515625L));
  // 1.5 * (1 + 2^-7) = 1.51171875 lies between 1.5078125 and 1.515625 in the middle: the addend decides.
  CHECK(__hfma(middle, unit, tiny).bits == __float2bfloat16(1.515625f).bits);
  CHECK(__hfma(middle, unit, __hneg(tiny)).bits == __float2bfloat16(1.5078125f).bits);
}

TEST_CASE("pairs keep their order, larger and smaller know NaN and signed zero") {
  const __half2 pair = __floats2half2_rn(1.5f, -2.0f);
  CHECK(__low2float(pair) == 1.5f);
  CHECK(__high2float(pair) == -2.0f);
  CHECK(std::bit_cast<uint32_t>(pair) == 0xc0003e00u);
  CHECK(__half22float2(__hfma2(pair, pair, pair)).y == 2.0f);
  CHECK(__half22float2(__hadd2(pair, __half2half2(__float2half(0.5f)))).x == 2.0f);
  const __nv_bfloat162 brains = __floats2bfloat162_rn(1.5f, -2.0f);
  CHECK(std::bit_cast<uint32_t>(brains) == 0xc0003fc0u);
  CHECK(__bfloat1622float2(__hmul2(brains, brains)).y == 4.0f);
  const auto nan = __ushort_as_half(0xfe00), zero = __float2half(0.0f), minus = __float2half(-0.0f);
  CHECK(__hmax(nan, zero).bits == 0);
  CHECK(__hmin(zero, nan).bits == 0);
  CHECK(__hmax(nan, nan).bits == 0x7fff);
  CHECK(__hmax(minus, zero).bits == 0);
  CHECK(__hmin(zero, minus).bits == 0x8000);
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
