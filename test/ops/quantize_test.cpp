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

Quantized quantize(const std::vector<float>& weights, DType dtype = DType::i8) {
  std::array<uint8_t, 32> codes{};
  codes.fill(99);
  BFloat16 scale = quantize_group(dtype, weights.data(), static_cast<int64_t>(weights.size()), codes.data());
  for (size_t i = weights.size(); i < codes.size(); i++) REQUIRE(codes[i] == 99);
  std::vector<int> q;
  for (size_t i = 0; i < weights.size(); i++) {
    REQUIRE((dtype == DType::i8 || codes[i] < 16));
    q.push_back(integer_of(dtype, codes[i]));
  }
  return {to_float(scale), q};
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

namespace {

double squared_error(const std::vector<float>& w, const Quantized& result) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); i++) {
    double error = result.q[i] * result.scale - w[i];
    sum += error * error;
  }
  return sum;
}

}  // namespace

TEST_CASE("quantize: int4 takes the nearest level, and a scale better than the obvious ones") {
  Random random(3);
  for (int64_t count : {1, 2, 7, 31, 32}) {
    for (int exponent = -90; exponent <= 120; exponent += 7) {
      for (int repeat = 0; repeat < 10; repeat++) {
        CAPTURE(count);
        CAPTURE(exponent);
        std::vector<float> w = random.normals(count, std::ldexp(1.0, exponent));
        Quantized result = quantize(w, DType::i4);
        double largest = 0;
        for (float v : w) largest = std::max(largest, std::abs(static_cast<double>(v)));
        for (size_t i = 0; i < w.size(); i++) {
          double least = INFINITY;
          for (int level : int4_levels) least = std::min(least, std::abs(level * result.scale - w[i]));
          REQUIRE(std::abs(result.q[i] * result.scale - w[i]) <= least + 1e-4 * std::abs(result.scale));
        }
        for (double obvious : {largest / 127, -largest / 127}) {
          Quantized other{obvious, {}};
          for (float v : w) {
            int best = int4_levels[0];
            for (int level : int4_levels)
              if (std::abs(level * obvious - v) < std::abs(best * obvious - v)) best = level;
            other.q.push_back(best);
          }
          // But for the scale's rounding to eight bits.
          double squares = 0;
          for (float v : w) squares += static_cast<double>(v) * v;
          REQUIRE(squared_error(w, result) <= squared_error(w, other) * 1.0001 + squares * 0x1.02p-16);
        }
      }
    }
  }
}

TEST_CASE("quantize: int4 loses less than llama.cpp's Q4_0 of normal weights") {
  Random random(4);
  double ours = 0, theirs = 0;
  for (int repeat = 0; repeat < 2000; repeat++) {
    std::vector<float> w = random.normals(32);
    ours += squared_error(w, quantize(w, DType::i4));
    // Q4_0: the largest weight is -8 steps.
    float largest = *std::ranges::max_element(w, {}, [](float v) { return std::abs(v); });
    Quantized other{to_float(to_half(largest / -8)), {}};
    for (float v : w)
      other.q.push_back(static_cast<int>(std::clamp(std::floor(v / other.scale + 8.5), 0.0, 15.0)) - 8);
    theirs += squared_error(w, other);
  }
  CHECK(ours < 0.8 * theirs);
}

TEST_CASE("quantize: int4 keeps levels exactly") {
  std::vector<float> w;
  for (int level : int4_levels) w.push_back(static_cast<float>(level) * -0.25f);
  Quantized result = quantize(w, DType::i4);
  CHECK(result.scale == -0.25);
  for (size_t i = 0; i < w.size(); i++) CHECK(result.q[i] == int4_levels[i]);
}

TEST_CASE("quantize: zeros have scale zero, and so have weights too small for a normal scale") {
  for (const std::vector<float>& w :
       {std::vector<float>{0, -0.0f, 0}, {FLT_TRUE_MIN, -FLT_MIN}, {1e-36f, -1e-37f}}) {
    Quantized result = quantize(w);
    CHECK(result.scale == 0);
    for (int q : result.q) CHECK(q == 0);
    CHECK(quantize(w, DType::i4).scale == 0);
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
  Quantized four = quantize({FLT_MAX, -FLT_MAX, 0, FLT_MAX / 2}, DType::i4);
  for (int q : four.q) CHECK(std::isfinite(static_cast<float>(q) * static_cast<float>(four.scale)));
}

TEST_CASE("quantize: a weight that is not finite makes its group NaN") {
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    for (size_t at : {0, 1, 3}) {
      std::vector<float> w = {1, -2, 3, 4};
      w[at] = bad;
      for (DType dtype : {DType::i8, DType::i4}) {
        Quantized result = quantize(w, dtype);
        for (int q : result.q) CHECK(std::isnan(result.scale * q));
      }
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
