// The formulas of ops/ops.h in double precision: what every implementation of the operators is compared with.
//
// A result is an Estimate: the value, and how far fp32 arithmetic may be from it. That bound follows from the
// formula alone: each operation rounds by 2^-24 of its result, a sum may be taken in any order, and exp, tanh
// and their like are as accurate as function_accuracy promises. Infinities and NaN have no bound: they must
// come out as they are.
//
// Recurrences are given for one token. A chain of them is tested link by link, each with the state that the
// implementation itself had before it: then no error is carried on, and bounds stay small.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace rwkv::test {

constexpr double fp32_rounding = 0x1p-24;     ///< relative, of one operation
constexpr double function_accuracy = 3e-7;    ///< relative, of exp, tanh, sigmoid, silu
constexpr double smallest_normal = 0x1p-126;  ///< what is below may be taken as zero
constexpr double silu_underflow = 3e-37;      ///< silu may be 0 where it is smaller than this

struct Estimate {
  double value = 0;
  double error = 0;

  Estimate() = default;
  /// An exact number when there is no error.
  Estimate(double value, double error = 0) : value(value), error(error) {}  // NOLINT: numbers are estimates
};

Estimate operator+(Estimate a, Estimate b);
Estimate operator-(Estimate a, Estimate b);
Estimate operator-(Estimate x);
Estimate operator*(Estimate a, Estimate b);
Estimate operator/(Estimate a, Estimate b);
Estimate max(Estimate a, Estimate b);  ///< NaN when one of them is
Estimate sqrt(Estimate x);
Estimate exp(Estimate x);
Estimate tanh(Estimate x);
Estimate sigmoid(Estimate x);
Estimate silu(Estimate x);

/// A sum in an order of the implementation's choice.
class Sum {
 public:
  void add(Estimate term);
  [[nodiscard]] Estimate total() const;

 private:
  double value_ = 0, error_ = 0, magnitude_ = 0;
  int64_t count_ = 0;
};

using Estimates = std::vector<Estimate>;
using Floats = std::span<const float>;

/// What one token of a recurrence gives.
struct Step {
  Estimates out, state;
};

Estimates normalize(const Estimates& x, Floats weight, Floats bias, double epsilon);
Estimates layer_norm(Floats x, Floats weight, Floats bias);

/// sum(x * w), with the weights as they are stored and the input already rounded as they want it.
Estimate dot(Floats x, Floats weights);

/// The elements of Product's tensors that one output needs.
struct EpilogueInputs {
  double out = 0, bias = 0, a = 0, b = 0;
};
Estimate apply(Epilogue epilogue, Estimate y, const EpilogueInputs& in);

/// out: n[t], then the mixed inputs one after the other. state: n[t].
Step token_shift(Floats x, Floats weight, Floats bias, Floats state, const std::vector<Floats>& mixes);

struct Wkv4Token {
  Floats r, k, v, decay, first, state;
};
Step wkv4(const Wkv4Token& in);

/// One head.
struct Wkv5Token {
  Floats r, k, v, decay, first, weight, bias, gate, state;  ///< gate: empty for none
};
Step wkv5(const Wkv5Token& in);

/// One head.
struct Wkv7Token {
  Floats r, decay, k, v, a, g, v_first, v_gate, k_k, k_a, r_k, weight, bias,
      state;  ///< v_first: may be empty
};
Step wkv7(const Wkv7Token& in);

bool agrees(float actual, const Estimate& expected);

/// "" when all agree, otherwise the first that does not, with its index, value and bound.
std::string mismatch(Floats actual, const Estimates& expected);

}  // namespace rwkv::test
