// One matrix product of the tests: its numbers on the host, its tensors on a device, its expected results.
#pragma once

#include <vector>

#include "test/ops/operator_cases.h"

namespace rwkv::test {

constexpr Epilogue epilogues[] = {
    Epilogue::none,       Epilogue::add,    Epilogue::gated_add,    Epilogue::tanh,
    Epilogue::sigmoid,    Epilogue::silu,   Epilogue::relu_squared, Epilogue::biased_sigmoid,
    Epilogue::biased_mix, Epilogue::decay6, Epilogue::decay7};
constexpr DType weight_types[] = {DType::f32, DType::f16, DType::bf16, DType::i8, DType::i4};
/// One after the other.
inline DType weight_type(int64_t i) { return weight_types[static_cast<size_t>(i) % std::size(weight_types)]; }

/// Everything about one product, on the host. Random: `seed` also chooses the places in the device's memory.
struct ProductCase {
  MatrixLayout layout;
  Epilogue epilogue;
  int64_t tokens, seed;
  PackedMatrix weight;
  std::vector<float> x, out, bias, a, b;  ///< dense; `out` before the product

  ProductCase(MatrixLayout layout, Epilogue epilogue, int64_t tokens, int64_t seed);
};

/// Some tokens of a case on a device.
class OnDevice {
 public:
  OnDevice(Device& device, const ProductCase& c, Range tokens);

  /// With the operands that the epilogue is said to need and no others.
  [[nodiscard]] Product product() const;
  [[nodiscard]] std::vector<float> result() const { return finish(out_, {&x_, &bias_, &a_, &b_}); }

 private:
  int64_t outputs_, count_;
  DeviceMatrix weight_;
  DeviceTensor x_, out_, bias_, a_, b_;
  Epilogue epilogue_;
};

/// These tokens' results, alone in their call.
std::vector<float> run_alone(Bench bench, const ProductCase& c, Range tokens);

void check_case(const Implementation& implementation, const ProductCase& c);

}  // namespace rwkv::test
