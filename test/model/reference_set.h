// Models with what the Python package `rwkv` computes from them: test/data/reference, and the folder that the
// environment variable RWKV_REFERENCE names, which is built the same way (test/data/reference/make.py).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rwkv::test {

struct ReferenceSet {
  std::string directory;
  std::vector<std::string> names;  ///< of the models, sorted
  std::vector<int32_t> tokens;
  /// int8 may have at most these multiples of the package's error: one model, one of more than six layers,
  /// and the geometric mean over all.
  double int8_bound, int8_bound_deep, int8_bound_mean;

  [[nodiscard]] std::string model(const std::string& name) const;
  /// Empty when the model has no state file.
  [[nodiscard]] std::string state(const std::string& name) const;
  /// The package's state after the tokens, as torch.save writes it. Empty when there is none.
  [[nodiscard]] std::string list(const std::string& name) const;
  /// `what`: "fp32", "bf16", "fp32.seq", ...
  [[nodiscard]] std::vector<float> expected(const std::string& name, const std::string& what) const;
};

const std::vector<ReferenceSet>& reference_sets();

/// The root of the mean square of actual - expected, in standard deviations of `expected`. NaN if a value is.
double relative_error(std::span<const float> actual, std::span<const float> expected);

}  // namespace rwkv::test
