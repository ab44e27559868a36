#include "core/half.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

/// A binary floating point format of 16 bits, by its definition.
struct Format {
  int mantissa_bits, bias;

  [[nodiscard]] int max_exponent() const { return (1 << (15 - mantissa_bits)) - 1; }

  /// The value of a pattern without sign, NaN excluded.
  [[nodiscard]] double value(uint32_t magnitude) const {
    int exponent = static_cast<int>(magnitude >> mantissa_bits);
    int mantissa = static_cast<int>(magnitude & ((1u << mantissa_bits) - 1));
    if (exponent == max_exponent()) return INFINITY;
    if (exponent == 0) return std::ldexp(mantissa, 1 - bias - mantissa_bits);
    return std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  }
  /// The pattern nearest to a value that is not negative, ties to the even pattern. What is half a step
  /// beyond the largest finite value is infinity. All differences are exact in double.
  [[nodiscard]] uint32_t nearest(double value_wanted) const {
    auto infinity = static_cast<uint32_t>(max_exponent()) << mantissa_bits;
    double step_to_infinity = value(infinity - 1) - value(infinity - 2);
    auto value_of = [&](uint32_t m) {
      return m == infinity ? value(infinity - 1) + step_to_infinity : value(m);
    };
    uint32_t low = 0, high = infinity;  // low <= wanted, and wanted < high if it is below infinity
    while (high - low > 1) {
      uint32_t middle = (low + high) / 2;
      (value_of(middle) <= value_wanted ? low : high) = middle;
    }
    if (value_wanted >= value_of(high)) return high;
    double above_low = value_wanted - value_of(low), below_high = value_of(high) - value_wanted;
    if (above_low == below_high) return (low & 1) == 0 ? low : high;
    return above_low < below_high ? low : high;
  }
};

constexpr Format half{10, 15};
constexpr Format bfloat16{7, 127};

/// Patterns near every boundary of rounding, and random ones of all exponents.
template <class Check>
void for_sample_floats(Check check) {
  for (uint32_t upper = 0; upper < 0x10000; upper++) {
    for (uint32_t lower : {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x2000u, 0x3000u, 0x7fffu, 0x8000u,
                           0x8001u, 0xf000u, 0xffffu}) {
      check(upper << 16 | lower);
    }
  }
  std::mt19937 random(1);
  for (int i = 0; i < 1'000'000; i++) check(random());
  for (int i = 0; i < 1'000'000; i++) {  // where half subnormals and small normals lie
    uint32_t exponent = 100 + random() % 45;
    check((random() & 0x807fffffu) | exponent << 23);
  }
}

/// Counts instead of millions of assertions, which would take minutes.
struct Failures {
  int64_t checked = 0, failed = 0;
  uint32_t first = 0;
  void count(bool good, uint32_t bits) {
    checked++;
    if (!good && failed++ == 0) first = bits;
  }
};

bool same(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

template <class Type>
void check_widening(const Format& format) {
  Failures failures;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    float value = to_float(Type{static_cast<uint16_t>(bits)});
    uint32_t magnitude = bits & 0x7fff;
    auto infinity = static_cast<uint32_t>(format.max_exponent()) << format.mantissa_bits;
    if (magnitude > infinity) {
      failures.count(std::isnan(value) && std::signbit(value) == (bits >> 15 != 0), bits);
    } else {
      auto expected = static_cast<float>(format.value(magnitude));
      failures.count(same(value, bits >> 15 != 0 ? -expected : expected), bits);
    }
  }
  INFO("first wrong pattern: ", failures.first);
  CHECK(failures.failed == 0);
  CHECK(failures.checked == 0x10000);
}

template <class Convert>
void check_narrowing(const Format& format, Convert convert) {
  Failures failures;
  auto infinity = static_cast<uint32_t>(format.max_exponent()) << format.mantissa_bits;
  uint32_t quiet = 1u << (format.mantissa_bits - 1);
  for_sample_floats([&](uint32_t bits) {
    auto value = std::bit_cast<float>(bits);
    uint32_t result = convert(value).bits;
    uint32_t sign = (bits >> 16) & 0x8000;
    uint32_t payload = (bits & 0x7fffff) >> (23 - format.mantissa_bits);
    uint32_t expected = std::isnan(value) ? infinity | quiet | payload
                                          : format.nearest(std::fabs(static_cast<double>(value)));
    failures.count(result == (sign | expected), bits);
  });
  INFO("first wrong pattern: ", failures.first);
  CHECK(failures.failed == 0);
  CHECK(failures.checked > 2'000'000);
}

}  // namespace

TEST_CASE("half: every pattern widens to its exact value") { check_widening<Half>(half); }

TEST_CASE("bfloat16: every pattern widens to its exact value") { check_widening<BFloat16>(bfloat16); }

TEST_CASE("half: floats round to the nearest, ties to even, NaN kept quiet with its upper payload") {
  check_narrowing(half, to_half);
}

TEST_CASE("bfloat16: floats round to the nearest, ties to even, NaN kept quiet with its upper payload") {
  check_narrowing(bfloat16, to_bfloat16);
}

TEST_CASE("half and bfloat16: every pattern but a signalling NaN survives a round trip") {
  Failures failures;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    Half h{static_cast<uint16_t>(bits)};
    bool nan = (bits & 0x7fff) > 0x7c00;
    failures.count(to_half(to_float(h)).bits == (nan ? bits | 0x200 : bits), bits);
    BFloat16 b{static_cast<uint16_t>(bits)};
    nan = (bits & 0x7fff) > 0x7f80;
    failures.count(to_bfloat16(to_float(b)).bits == (nan ? bits | 0x40 : bits), bits);
  }
  INFO("first wrong pattern: ", failures.first);
  CHECK(failures.failed == 0);
}

TEST_CASE("half and bfloat16: values known by heart") {
  CHECK(to_half(1.0f).bits == 0x3c00);
  CHECK(to_half(-2.0f).bits == 0xc000);
  CHECK(to_half(65504.0f).bits == 0x7bff);
  CHECK(to_half(65519.996f).bits == 0x7bff);
  CHECK(to_half(65520.0f).bits == 0x7c00);
  CHECK(to_half(0x1p-24f).bits == 0x0001);
  CHECK(to_half(0x1p-25f).bits == 0x0000);
  CHECK(to_half(std::nextafter(0x1p-25f, 1.0f)).bits == 0x0001);
  CHECK(to_bfloat16(1.0f).bits == 0x3f80);
  CHECK(to_bfloat16(3.0e38f).bits == 0x7f62);
  CHECK(to_bfloat16(-INFINITY).bits == 0xff80);
  static_assert(to_float(Half{0x3555}) == 0x1.554p-2f);
  static_assert(to_bfloat16(0x1.ffp0f).bits == 0x4000);
}

}  // namespace rwkv::test

TEST_SUITE_END();
