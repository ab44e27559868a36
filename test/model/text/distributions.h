// What the tests of sampling share.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "model/text/sampler.h"

namespace rwkv::test {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;
using Ids = std::vector<int32_t>;

/// No cut, no penalty: every token may be drawn, as far as top_p = 0.99 allows.
inline SamplerOptions open_options() {
  SamplerOptions options;
  options.top_p = 0.99f;
  return options;
}

inline Distribution distribution_of(const Floats& logits, const SamplerOptions& options,
                                    const PenaltyTable& penalties = {}) {
  Distribution result;
  compute_distribution(logits, options, penalties, result);
  return result;
}

/// The probability of every token of the vocabulary.
inline std::vector<double> dense(const Distribution& distribution, size_t vocabulary) {
  std::vector<double> probabilities(vocabulary);
  for (size_t i = 0; i < distribution.ids.size(); ++i) {
    probabilities[static_cast<size_t>(distribution.ids[i])] = distribution.probabilities[i];
  }
  return probabilities;
}

/// NaN, and infinity for lists of different lengths, are no small difference.
inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (std::isnan(difference)) return difference;
    if (difference > largest) largest = difference;
  }
  return largest;
}

}  // namespace rwkv::test
