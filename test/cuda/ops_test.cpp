// The operators of a CUDA device: every case of test/ops.
#include "cuda/ops.h"

#include <doctest/doctest.h>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/operator_cases.h"

namespace rwkv::test {
namespace {

constexpr Layout layouts[] = {Layout::cuda_blocks, Layout::input_rows};
constexpr DType types[] = {DType::f32, DType::f16, DType::bf16, DType::i8};

Implementation implementation() {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(cuda::open(0));
  return {std::move(devices), {std::begin(layouts), std::end(layouts)}, Rounding::cuda};
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("embed") {
  on_device(4, [] { check_embed(implementation()); });
}
TEST_CASE("layer_norm") {
  on_device(1, [] { check_layer_norm(implementation()); });
}
TEST_CASE("token_shift") {
  on_device(1, [] { check_token_shift(implementation()); });
}
TEST_CASE("matmul: all layouts and types") {
  on_device(1, [] {
    Implementation all = implementation();
    for (Layout layout : layouts) {
      for (DType dtype : types) check_matmul(all, layout, dtype);
    }
  });
}
TEST_CASE("matmul: all epilogues") {
  on_device(1, [] {
    Implementation all = implementation();
    for (Layout layout : layouts) {
      for (DType dtype : types) check_epilogues(all, layout, dtype);
    }
  });
}
TEST_CASE("matmul: several products in a call give what each gives alone") {
  on_device(1, [] { check_matmul_of_several(implementation()); });
}
TEST_CASE("matmul: smallest and largest numbers, infinities, NaN") {
  on_device(1, [] { check_matmul_extremes(implementation()); });
}
TEST_CASE("functions: within their accuracy over all floats") {
  on_device(1, [] { check_functions(implementation()); });
}
TEST_CASE("wkv4") {
  on_device(1, [] { check_wkv4(implementation()); });
}
TEST_CASE("wkv5: one decay for all tokens") {
  on_device(1, [] { check_wkv5(implementation()); });
}
TEST_CASE("wkv5: a decay for each token, as version 6 has") {
  on_device(1, [] { check_wkv6(implementation()); });
}
TEST_CASE("wkv7") {
  on_device(1, [] { check_wkv7(implementation()); });
}

TEST_SUITE_END();

}  // namespace rwkv::test
