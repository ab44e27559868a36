// The ends of the range of numbers: products of the smallest and largest, infinities, NaN, and the functions
// of the epilogues over all floats.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

/// A case whose weights and inputs are drawn from these numbers.
ProductCase with_values(MatrixLayout layout, int64_t tokens, const std::vector<float>& of_weights,
                        const std::vector<float>& of_inputs, int64_t seed) {
  ProductCase c(layout, Epilogue::none, tokens, seed);
  Random random(static_cast<uint64_t>(seed));
  auto draw = [&](const std::vector<float>& from) {
    return from[static_cast<size_t>(random.index(static_cast<int64_t>(from.size())))];
  };
  std::vector<float> values(static_cast<size_t>(layout.outputs * layout.inputs));
  for (float& v : values) v = draw(of_weights);
  c.weight = PackedMatrix(layout, values);
  for (float& v : c.x) v = draw(of_inputs);
  return c;
}

void check_not_finite(const Implementation& implementation, MatrixLayout layout) {
  ProductCase c(layout, Epilogue::none, 13, 3);
  constexpr float inf = INFINITY;
  auto at = [&](int64_t token, int64_t input) -> float& {
    return c.x[static_cast<size_t>(token * layout.inputs + input)];
  };
  at(2, layout.inputs - 1) = NAN;
  at(5, 0) = inf;
  at(7, 3) = -inf;
  at(7, 4) = inf;
  check_case(implementation, c);
  for (Epilogue epilogue : epilogues) {  // NaN passes through all of them
    ProductCase one(layout, epilogue, 1, 4);
    one.x[0] = NAN;
    check_case(implementation, one);
  }
}

}  // namespace

void check_matmul_extremes(const Implementation& implementation) {
  int64_t seed = 50;
  for (Layout layout : implementation.layouts()) {
    for (int64_t tokens : {1, 13}) {
      auto check = [&](DType dtype, const std::vector<float>& of_weights,
                       const std::vector<float>& of_inputs) {
        check_case(implementation,
                   with_values({layout, dtype, 50, 130}, tokens, of_weights, of_inputs, seed++));
      };
      for (DType dtype : {DType::i8, DType::i4}) {
        check(dtype, {-127, 127}, {-1, 1});
        check(dtype, {-127, -127}, {1, 1e30f});
        check(dtype, {-127e-30f, 3e-30f, 1e-31f}, {1e30f, -1, 1});
        check(dtype, {0, -0.0f}, {1, -1, 1e38f});
      }
      check(DType::f16, {0x1p-24f, -0x1p-24f, 0x3ffp-24f, 0}, {1, -1, 1e4f});
      check(DType::f16, {65504, -65504, 0x1p-24f}, {1, 1e-3f, -1e-8f});
      check(DType::bf16, {1e-30f, 3e38f, -1e38f}, {1e-30f, -1e-38f, 0});
      check(DType::bf16, {1e-38f, -1e-38f}, {1e38f, 3e38f, 1});
      check(DType::bf16, {1, -1.0078125f}, {1.00390625f, 1.01171875f, -1});  // halfway: ties to even
      check(DType::bf16, {1.9921875f}, {1});  // the largest integers, all of one sign
      if (layout == Layout::cpu_blocks) check(DType::bf16, {1, INFINITY}, {1, 2});
      check(DType::f32, {1e-30f, 1e38f, -1e38f}, {1e-30f, -1e-38f, 0});
      check(DType::f32, {16777215, 1, -1}, {16777213, 1});
    }
    for (DType dtype : weight_types) check_not_finite(implementation, {layout, dtype, 45, 70});
  }
  // Nothing of a product stays behind for the next one.
  for (Layout layout : implementation.layouts()) {
    for (DType dtype : weight_types) {
      ProductCase before({layout, dtype, 20, 128}, Epilogue::none, 3, 1);
      std::fill(before.x.begin(), before.x.end(), NAN);
      run_alone(implementation[0], before, {0, 3});
      check_case(implementation, {{layout, dtype, 20, 33}, Epilogue::none, 3, 2});
    }
  }
  // What underflows to -0 alone must do so among others, too.
  for (Layout layout : implementation.layouts()) {
    ProductCase c({layout, DType::f32, 20, 40}, Epilogue::none, 12, 1);
    std::fill(c.x.begin(), c.x.end(), 0.0f);
    for (int64_t t = 0; t < c.tokens; t++) c.x[static_cast<size_t>(t * 40 + t)] = 1e-30f;
    c.weight = PackedMatrix(c.layout, std::vector<float>(800, -1e-30f));
    check_case(implementation, c);
  }
}

namespace {

/// Bits that cover all floats, dense where a function's implementation may change its ways.
std::vector<float> samples() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 30011)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (double center : {0.0,  0.3,  0.5,  0.55, 0.6,  0.625, 0.7,  1.0,  2.0,   9.0,    16.0,  17.3,
                        20.0, 44.3, 87.3, 88.0, 88.7, 88.73, 89.0, 91.9, 103.3, 103.97, 104.0, 150.0}) {
    for (int i = -600; i <= 600; i++) {
      values.push_back(static_cast<float>(center * (1 + i * 0x1p-22)));
      values.push_back(static_cast<float>(-center - i * 1e-4));
    }
  }
  for (float v : {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 3.4028234e38f, -3.4028234e38f}) values.push_back(v);
  return values;
}

}  // namespace

namespace {

/// exp for negative numbers: what wkv4 makes of a state of ones when key and value are zero.
void check_exp(const Implementation& implementation, std::vector<float> x) {
  for (float& v : x) v = -std::abs(v);
  auto count = static_cast<int64_t>(x.size());
  Device& device = implementation[0].device;
  std::vector<float> zeros(x.size()), state(2 * x.size(), 1.0f);
  state.insert(state.end(), x.begin(), x.end());
  DeviceTensor zero(device, {1, count}, zeros), none(device, {count}, zeros);
  DeviceTensor kept(device, {3, count}, state), out(device, {1, count}, zeros);
  implementation[0].ops.wkv4({zero, zero, zero, none, none, kept, out});
  implementation[0].ops.synchronize();
  std::vector<float> aa = kept.values();
  aa.resize(x.size());
  Estimates expected;
  for (float v : x) expected.push_back(exp(Estimate(v)));
  CHECK(mismatch(aa, expected) == "");
}

}  // namespace

void check_functions(const Implementation& implementation) {
  struct {
    Epilogue epilogue;
    Estimate (*function)(Estimate);
    bool biased;
  } functions[] = {
      {Epilogue::tanh, tanh, false},
      {Epilogue::sigmoid, sigmoid, false},
      {Epilogue::silu, silu, false},
      {Epilogue::relu_squared, [](Estimate x) { return max(x, 0) * max(x, 0); }, false},
      {Epilogue::biased_sigmoid, sigmoid, true},
      {Epilogue::decay6, [](Estimate x) { return exp(-exp(x)); }, true},
      {Epilogue::decay7, [](Estimate x) { return exp(Estimate(-0.606531, 1e-8) * sigmoid(x)); }, true},
  };
  std::vector<float> x = samples(), zeros(x.size());
  auto count = static_cast<int64_t>(x.size());
  check_exp(implementation, x);
  for (Layout layout : implementation.layouts()) {
    // The numbers are weights of an input that is one, or biases: so they arrive at the function as they are.
    PackedMatrix numbers({layout, DType::f32, count, 1}, x), nothing({layout, DType::f32, count, 1}, zeros);
    Device& device = implementation[0].device;
    DeviceTensor one(device, {1, 1}, std::vector<float>{1.0f}), bias(device, {count}, x);
    for (const auto& f : functions) {
      CAPTURE(static_cast<int>(f.epilogue));
      DeviceMatrix weight(device, f.biased ? nothing : numbers);
      DeviceTensor out(device, {1, count}, zeros);
      Product product{one, weight, out, f.epilogue, f.biased ? bias.view() : Tensor{}};
      implementation[0].ops.matmul({&product, 1});
      implementation[0].ops.synchronize();
      Estimates expected;
      for (float v : x) expected.push_back(f.function(v));
      CHECK(mismatch(finish(out, {&one, &bias}), expected) == "");
    }
  }
}

}  // namespace rwkv::test
