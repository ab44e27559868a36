#include "ops/quantize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <vector>

#include "test/ops/device_tensor.h"

TEST_SUITE_BEGIN("ops");

namespace rwkv::test {
namespace {

struct Quantized {
  double scale;
  std::vector<int> q;
};

Quantized quantize(const std::vector<float>& weights) {
  std::array<int8_t, 32> q{};
  q.fill(99);
  BFloat16 scale = quantize_group(weights.data(), static_cast<int64_t>(weights.size()), 1, q.data());
  for (size_t i = weights.size(); i < q.size(); i++) REQUIRE(q[i] == 99);
  return {to_float(scale), {q.begin(), q.begin() + static_cast<int64_t>(weights.size())}};
}

}  // namespace

TEST_CASE(
    "quantize: the scale is the largest weight over 127, and no weight is off by more than half of it") {
  Random random(1);
  // Rounding of weight / scale in fp32: 127 times two roundings of 2^-24.
  constexpr double half = 0.5 + 127 * 0x1p-23;
  for (int64_t count : {1, 2, 7, 31, 32}) {
    for (int exponent = -95; exponent <= 120; exponent += 5) {
      for (int repeat = 0; repeat < 20; repeat++) {
        CAPTURE(count);
        CAPTURE(exponent);
        std::vector<float> w = random.normals(count, std::ldexp(1.0, exponent));
        Quantized result = quantize(w);
        double largest = 0;
        for (float v : w) largest = std::max(largest, std::abs(static_cast<double>(v)));
        REQUIRE(std::abs(result.scale - largest / 127) <= largest / 127 * 0x1.01p-8);  // bf16: 8 bits
        for (size_t i = 0; i < w.size(); i++) {
          REQUIRE(std::abs(result.q[i]) <= 127);
          REQUIRE(std::abs(result.q[i] * result.scale - w[i]) <= half * result.scale);
        }
      }
    }
  }
}

TEST_CASE("quantize: symmetric, and the largest weight is 126 or 127 steps") {
  Random random(2);
  for (int repeat = 0; repeat < 200; repeat++) {
    std::vector<float> w = random.normals(32), negative = w;
    for (float& v : negative) v = -v;
    Quantized a = quantize(w), b = quantize(negative);
    REQUIRE(a.scale == b.scale);
    int largest = 0;
    for (size_t i = 0; i < w.size(); i++) {
      REQUIRE(a.q[i] == -b.q[i]);
      largest = std::max(largest, std::abs(a.q[i]));
    }
    REQUIRE((largest == 126 || largest == 127));
  }
}

TEST_CASE("quantize: whole steps are kept exactly") {
  std::vector<float> w;
  for (int i = -16; i < 16; i++) w.push_back(static_cast<float>(i * 8) * 0.25f);
  w[0] = -127 * 0.25f;
  Quantized result = quantize(w);
  CHECK(result.scale == 0.25);
  CHECK(result.q[0] == -127);
  for (int i = 1; i < 32; i++) CHECK(result.q[static_cast<size_t>(i)] == (i - 16) * 8);
}

TEST_CASE("quantize: weights that stand apart, and nothing else, are read") {
  std::vector<float> w = {1, 1e9f, -2, 1e9f, 3, NAN, 127, INFINITY};
  std::array<int8_t, 4> q{};
  CHECK(to_float(quantize_group(w.data(), 4, 2, q.data())) == 1.0f);
  CHECK(q == std::array<int8_t, 4>{1, -2, 3, 127});
}

TEST_CASE("quantize: zeros have scale zero, and so have weights too small for a normal scale") {
  for (const std::vector<float>& w :
       {std::vector<float>{0, -0.0f, 0}, {FLT_TRUE_MIN, -FLT_MIN}, {1e-36f, -1e-37f}}) {
    Quantized result = quantize(w);
    CHECK(result.scale == 0);
    for (int q : result.q) CHECK(q == 0);
  }
  CHECK(quantize({127 * FLT_MIN, -FLT_MIN}).scale == FLT_MIN);
  CHECK(quantize({127 * FLT_MIN, -FLT_MIN}).q == std::vector<int>{127, -1});
}

TEST_CASE("quantize: the largest numbers do not overflow") {
  Quantized result = quantize({FLT_MAX, -FLT_MAX, 0, FLT_MAX / 2});
  CHECK(std::isfinite(result.scale * 127));
  CHECK(std::abs(result.scale - FLT_MAX / 127.0) <= FLT_MAX / 127.0 * 0x1.01p-8);
  CHECK(result.q[0] == -result.q[1]);
  CHECK(result.q[0] >= 126);
  CHECK(result.q[2] == 0);
}

TEST_CASE("quantize: a weight that is not finite makes its group NaN") {
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    for (size_t at : {0, 1, 3}) {
      std::vector<float> w = {1, -2, 3, 4};
      w[at] = bad;
      Quantized result = quantize(w);
      for (int q : result.q) CHECK(std::isnan(result.scale * q));
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
