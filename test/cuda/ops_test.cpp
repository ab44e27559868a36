// The operators of a CUDA device: every case of test/ops.
#include "cuda/ops.h"

#include <doctest/doctest.h>

#include <functional>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/operator_cases.h"
#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

constexpr Layout layouts[] = {Layout::cuda_blocks, Layout::input_rows};

Implementation implementation() {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(cuda::open(0));
  return {std::move(devices), {std::begin(layouts), std::end(layouts)}, Rounding::cuda};
}

/// Some cases take long on emulated devices: under the settings of one run of on_device() alone.
void in_run(int index, const std::function<void()>& test) {
  int run = 0;
  on_device(index + 1, [&] {
    if (run++ == index || !emulated()) test();
  });
}

/// Each layout and type under other settings.
void for_matrices(const std::function<void(Layout, DType)>& test) {
  int index = 0;
  for (Layout layout : layouts) {
    for (DType dtype : weight_types) {
      in_run(index++, [&] { test(layout, dtype); });
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("embed") {
  on_device(4, [] { check_embed(implementation()); });
}
TEST_CASE("layer_norm") {
  in_run(3, [] { check_layer_norm(implementation()); });
}
TEST_CASE("token_shift") {
  in_run(7, [] { check_token_shift(implementation()); });
}
TEST_CASE("matmul: all layouts and types") {
  for_matrices([](Layout layout, DType dtype) { check_matmul(implementation(), layout, dtype); });
}
TEST_CASE("matmul: all epilogues") {
  for_matrices([](Layout layout, DType dtype) { check_epilogues(implementation(), layout, dtype); });
}
TEST_CASE("matmul: several products in a call give what each gives alone") {
  on_device(4, [] { check_matmul_of_several(implementation()); });
}
TEST_CASE("matmul: products that share an input give what each gives alone") {
  on_device(4, [] { check_matmul_of_shared_inputs(implementation()); });
}
TEST_CASE("matmul: smallest and largest numbers, infinities, NaN") {
  in_run(6, [] { check_matmul_extremes(implementation()); });
}
TEST_CASE("functions: within their accuracy over all floats") {
  in_run(1, [] { check_functions(implementation()); });
}
TEST_CASE("matmul: a product that waits for what may join it runs when the operators go") {
  on_device(4, [] {
    auto device = cuda::open(0);
    ProductCase c({Layout::cuda_blocks, DType::f16, 40, 70}, Epilogue::biased_sigmoid, 1, 1);
    auto ops = device->make_ops();
    std::vector<float> expected = run_alone({*device, *ops}, c, {0, 1});
    OnDevice on_device(*device, c, {0, 1});
    Product product = on_device.product();
    ops->matmul({&product, 1});
    ops.reset();
    CHECK(same_bits(on_device.result(), expected));
  });
}
TEST_CASE("wkv4") {
  in_run(2, [] { check_wkv4(implementation()); });
}
TEST_CASE("wkv5: one decay for all tokens") {
  in_run(7, [] { check_wkv5(implementation()); });
}
TEST_CASE("wkv5: a decay for each token, as version 6 has") {
  in_run(3, [] { check_wkv6(implementation()); });
}
TEST_CASE("wkv7") {
  in_run(6, [] { check_wkv7(implementation()); });
}

TEST_SUITE_END();

}  // namespace rwkv::test
