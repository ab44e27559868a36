#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cpu/features.h"

TEST_SUITE_BEGIN("cpu");

namespace rwkv::test {
namespace {

using Floats = std::vector<float>;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Logits as flat and as steep as they come, with bans and with equals among them.
template <class Check>
void for_logits(Check check) {
  std::mt19937 random(11);
  for (const size_t size : {16U, 32U, 48U, 4096U}) {
    for (const float spread : {0.01f, 1.0f, 5.0f, 40.0f, 1e30f}) {
      std::normal_distribution<float> normal(0, spread);
      Floats logits(size);
      for (float& x : logits) x = random() % 9 == 0 ? -infinity : random() % 9 == 0 ? spread : normal(random);
      logits[random() % size] = 0;
      check(logits);
    }
  }
}

Floats softmax_of(const cpu::Kernels& kernels, const Floats& logits) {
  Floats result(logits.size());
  kernels.softmax(logits, kernels.maximum(logits), result.data());
  return result;
}

}  // namespace

TEST_CASE("vocabulary: softmax is as exact as its sums in fp32 and has the same bits in every set") {
  const cpu::Kernels& kernels = cpu::choose_kernels();
  const cpu::Kernels& scalar = *cpu::supported_kernels().back();
  for_logits([&](const Floats& logits) {
    const float max = *std::max_element(logits.begin(), logits.end());
    REQUIRE(kernels.maximum(logits) == max);
    const Floats softmax = softmax_of(kernels, logits);
    REQUIRE(softmax == softmax_of(scalar, logits));
    const size_t roundings = logits.size() / 16 + 8;  // at most
    const double bound = static_cast<double>(roundings) * 0x1p-24;
    double total = 0;
    const auto exponential = [max](float x) { return std::exp(static_cast<double>(x - max)); };
    for (const float x : logits) total += exponential(x);
    for (size_t i = 0; i < logits.size(); ++i) {
      const double expected = exponential(logits[i]) / total;
      REQUIRE(std::abs(softmax[i] - expected) <= bound * expected + 1e-37);
    }
  });
}

TEST_CASE("vocabulary: what is found in a range is what a loop finds") {
  const cpu::Kernels& kernels = cpu::choose_kernels();
  for_logits([&](const Floats& values) {
    const Floats limits = {-infinity, -1.0f, 0.0f, values[3], 2.0f, infinity};
    for (const float lower : limits) {
      for (const float upper : limits) {
        std::vector<int32_t> expected, found(values.size());
        for (size_t i = 0; i < values.size(); ++i) {
          if (values[i] >= lower && values[i] < upper) expected.push_back(static_cast<int32_t>(i));
        }
        found.resize(static_cast<size_t>(kernels.find_in_range(values, lower, upper, found.data())));
        REQUIRE(found == expected);
        REQUIRE(kernels.all_in_range(values, lower, upper) == (found.size() == values.size()));
      }
    }
  });
}

TEST_CASE("vocabulary: a NaN is in no range, wherever it stands") {
  const cpu::Kernels& kernels = cpu::choose_kernels();
  for (size_t at = 0; at < 32; ++at) {
    Floats values(32);
    REQUIRE(kernels.all_in_range(values, -infinity, infinity));
    values[at] = std::numeric_limits<float>::quiet_NaN();
    REQUIRE_FALSE(kernels.all_in_range(values, -infinity, infinity));
    std::vector<int32_t> found(values.size());
    REQUIRE(kernels.find_in_range(values, -infinity, infinity, found.data()) == 31);
    REQUIRE(std::find(found.begin(), found.begin() + 31, static_cast<int32_t>(at)) == found.begin() + 31);
  }
}

}  // namespace rwkv::test
