// What the tests of cuda::matvec share: a device with a queue and a workspace, products on it, expected
// results.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "cuda/cuda.h"
#include "cuda/kernels/kernels.h"
#include "cuda/queue.h"
#include "test/ops/product_case.h"

namespace rwkv::test {

/// Workspaces are as large as the products need and no larger.
class MatvecBench {
 public:
  [[nodiscard]] Device& device() const { return *device_; }
  [[nodiscard]] const cuda::Queue& queue() const { return queue_; }

  /// Runs the products and waits.
  void run(std::span<const Product> products, const cuda::Tail& tail = {}) const {
    Ops::Limits limits{.tokens = 1};
    for (const Product& p : products) {
      limits.product_inputs += (p.x.cols() + 63) / 64 * 64;
      limits.product_outputs = std::max(limits.product_outputs, p.out.cols());
    }
    const size_t bytes = cuda::sum_bytes(limits);
    const Buffer sums = device_->allocate(bytes);
    const std::vector<std::byte> nan(bytes, std::byte{0xff});
    device_->copy_in(sums.data(), nan.data(), bytes);
    cuda::Workspace workspace;
    workspace.sums = reinterpret_cast<float*>(sums.data());
    workspace.sum_bytes = bytes;
    workspace.counters = reinterpret_cast<unsigned*>(counters_.data());
    cuda::matvec(products, tail, workspace, queue_.stream());
    queue_.synchronize();
    std::vector<std::byte> counters(counters_.size());
    device_->copy_out(counters.data(), counters_.data(), counters.size());
    CHECK(std::ranges::all_of(counters, [](std::byte b) { return b == std::byte{0}; }));
  }

  [[nodiscard]] std::vector<float> run(const ProductCase& c) const {
    OnDevice on_device(*device_, c, {0, 1});
    const Product product = on_device.product();
    run({&product, 1});
    return on_device.result();
  }

 private:
  std::unique_ptr<Device> device_ = cuda::open(0);
  cuda::Queue queue_{0};
  Buffer counters_ = device_->allocate(cuda::max_counters * sizeof(unsigned));
};

struct Shape {
  int64_t outputs, inputs;
};

inline ProductCase one_token(Layout layout, DType dtype, int64_t outputs, int64_t inputs, Epilogue epilogue,
                             int64_t seed) {
  return {{layout, dtype, outputs, inputs}, epilogue, 1, seed};
}

/// Inputs stay fp32.
inline Estimates expected_of(const ProductCase& c) {
  Estimates all;
  for (int64_t o = 0; o < c.layout.outputs; o++) {
    const auto i = static_cast<size_t>(o);
    all.push_back(apply(c.epilogue, dot(c.x, c.weight.row(o)), {c.out[i], c.bias[i], c.a[i], c.b[i]}));
  }
  return all;
}

}  // namespace rwkv::test
