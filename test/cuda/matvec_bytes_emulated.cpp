// What the products of one token read, as the emulated device counts it.
#include <doctest/doctest.h>

#include "cuda/emulator/control.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/matvec_bench.h"

namespace rwkv::test {
namespace {

/// Bytes of weights and scales that a product needs, padding aside.
double needed_bytes(const ProductCase& c) {
  const MatrixLayout& m = c.layout;
  const double element = static_cast<double>(bits_of(m.dtype)) / 8;
  const double of_scales = is_quantized(m.dtype) ? 2.0 / scale_group : 0;
  auto rows = static_cast<double>(m.outputs), width = static_cast<double>(m.inputs);
  if (m.layout == Layout::input_rows) {
    rows = static_cast<double>(std::ranges::count_if(c.x, [](float x) { return x != 0; }));
    width = static_cast<double>(m.outputs);
  }
  return rows * width * (element + of_scales);
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("matvec: each weight that counts and each scale is read once") {
  on_device(1, [] {
    const MatvecBench bench;
    int64_t seed = 1;
    for (Layout layout : {Layout::cuda_blocks, Layout::input_rows}) {
      for (DType dtype : weight_types) {
        for (Shape s : {Shape{64, 128}, {768, 256}, {250, 2048}, {2112, 192}}) {
          if (layout == Layout::input_rows && s.outputs == 250) s.outputs = 256;
          CAPTURE(static_cast<int>(layout));
          CAPTURE(name_of(dtype));
          CAPTURE(s.outputs);
          const ProductCase c = one_token(layout, dtype, s.outputs, s.inputs, Epilogue::none, seed++);
          emulator::reset_counters();
          const std::vector<float> out = bench.run(c);
          const auto read = static_cast<double>(emulator::counters().kernel_load_bytes);
          CHECK(read >= needed_bytes(c));
          CHECK(read <= 1.001 * needed_bytes(c));
        }
      }
    }
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
