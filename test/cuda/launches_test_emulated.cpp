// What a token costs: launches, and no memory.
#include <doctest/doctest.h>

#include "cuda/cuda.h"
#include "cuda/emulator/control.h"
#include "test/allocations.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/small_model.h"
#include "test/ops/operator_cases.h"

namespace rwkv::test {
namespace {

/// Of one token. The embedding is one, since a kernel reads it from pinned memory.
int64_t launches(Version version, int64_t layers) {
  auto device = cuda::open(0);
  auto ops = device->make_ops();
  SmallModel model(*device, version, DType::f16, Quantization::none, layers);
  SmallModel::State state = model.make_state();
  const int32_t token = 7;
  uint64_t before = emulator::counters().launches;
  model.embed(*ops, {&token, 1});
  model.run_layers(*ops, state, 1);
  ops->synchronize();
  return static_cast<int64_t>(emulator::counters().launches - before);
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("launches: a token takes few for each layer, and three more") {
  struct {
    Version version;
    int64_t of_layer;
  } expected[] = {
      {Version::v4, 5}, {Version::v5_0, 5}, {Version::v5_2, 5}, {Version::v6, 7}, {Version::v7, 5}};
  on_device(1, [&] {
    for (const auto& e : expected) {
      CAPTURE(static_cast<int>(e.version));
      for (int64_t layers : {1, 3}) CHECK(launches(e.version, layers) == e.of_layer * layers + 3);
    }
  });
}

TEST_CASE("operators allocate nothing once memory is reserved") {
  leave_out_allocations(emulator::inside_runtime);
  on_device(4, [] {
    std::vector<std::unique_ptr<Device>> devices;
    devices.push_back(cuda::open(0));
    check_allocations({std::move(devices), {Layout::cuda_blocks, Layout::input_rows}, Rounding::cuda});
  });
  leave_out_allocations(nullptr);
}

TEST_CASE("operators take no memory of the device once it is reserved, and copy from pinned memory alone") {
  on_device(1, [] {
    auto device = cuda::open(0);
    for (Version version : versions) {
      CAPTURE(static_cast<int>(version));
      auto ops = device->make_ops();
      SmallModel model(*device, version, DType::f16, Quantization::int8, 2);
      SmallModel::State state = model.make_state();
      uint64_t before = device->free_memory();
      model.reserve(*ops);
      CHECK(before > device->free_memory());
      int calls = emulator::calls(emulator::Operation::device_allocation) +
                  emulator::calls(emulator::Operation::pinned_allocation);
      uint64_t pageable = emulator::counters().pageable_copies;
      for (int64_t tokens : {8, 1, 5, 1}) {
        model.embed(*ops, std::vector<int32_t>(static_cast<size_t>(tokens), 3));
        model.run_layers(*ops, state, tokens);
        std::vector<float> logits(static_cast<size_t>(model.logits(tokens).elements()));
        ops->download(logits.data(), model.logits(tokens));
      }
      CHECK(pageable == emulator::counters().pageable_copies);
      CHECK(calls == emulator::calls(emulator::Operation::device_allocation) +
                         emulator::calls(emulator::Operation::pinned_allocation));
    }
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
