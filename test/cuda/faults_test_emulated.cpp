// What goes wrong on a machine: each time one line that says so, and nothing is left behind.
#include <doctest/doctest.h>

#include <algorithm>

#include "cuda/cuda.h"
#include "cuda/emulator/control.h"
#include "model/auto_strategy.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

using emulator::Operation;

void restart(const emulator::Settings& changed) {
  emulator::Settings settings = changed;
  settings.print_reports = false;
  emulator::configure(settings);
}

bool is_line(const std::string& text) {
  return !text.empty() && std::ranges::none_of(text, [](char c) { return c == '\n'; });
}

struct Result {
  std::vector<float> values;
  std::string error;
};

/// Something of everything: memory, transfers, operators, chunks, repeated work, slots, two devices.
std::vector<float> use_everything() {
  constexpr int64_t width = 24;
  auto device = cuda::open(0), other = cuda::open(1);
  Random random(1);
  std::vector<float> table = random.normals(3 * width), read(1000);
  PackedMatrix matrix({Layout::input_rows, DType::bf16, width, width}, random.normals(width * width));
  DeviceMatrix weight(*device, matrix);
  DeviceTensor x(*device, {2, width}, table), norm(*device, {width}, table), out(*device, {2, width}, table);
  auto ops = device->make_ops(), others = other->make_ops();
  ops->reserve({2, 64, width, 400});
  const std::vector<std::byte> file(5000);
  Buffer pinned = device->pin(file);

  const void* key[] = {&x};
  for (int64_t count : {2, 1, 1, 1}) {
    const int32_t tokens[] = {1, 2};
    Tensor from = x.view().slice_rows(0, count), to = out.view().slice_rows(0, count);
    ops->embed(from, matrix_view(table.data(), DType::f32, 3, width),
               std::span(tokens).first(static_cast<size_t>(count)));
    auto work = [&] {
      const Product product[] = {{from, weight, to, Epilogue::add}};
      ops->matmul(product);
      ops->layer_norm(to, to, {norm, norm});
    };
    count == 1 ? ops->repeat(key, work) : work();
  }
  Buffer far = other->allocate(2 * width * 4);
  Tensor received = matrix_view(far.data(), DType::f32, 2, width);
  others->receive(received, *ops, out);
  others->download(read.data(), received);
  std::vector<float> result(read.begin(), read.begin() + 2 * width);

  Buffer memory = device->allocate(4000), staging = device->allocate_staging(4000);
  std::ranges::fill(std::span(reinterpret_cast<float*>(staging.data()), 1000), 2.5f);
  auto slots = device->make_slots(*ops, 2);
  slots->fill(0, memory.data(), staging.data(), 4000);
  slots->acquire(0);
  ops->download(read.data(), vector_view(memory.data(), DType::f32, 1000));
  slots->release(0);
  result.insert(result.end(), read.begin(), read.end());
  device->copy_out(reinterpret_cast<std::byte*>(read.data()), out.view().data, width * 4);
  result.insert(result.end(), read.begin(), read.end());
  return result;
}

Result outcome() {
  Result result;
  result.error = error_of([&] { result.values = use_everything(); });
  return result;
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("faults: no driver, no device, no such device") {
  restart({.driver = false});
  CHECK(cuda::device_count() == 0);
  CHECK(cuda::missing() ==
        "cuda: cannot find a device: CUDA driver version is insufficient for CUDA runtime version "
        "(cudaErrorInsufficientDriver); if there is an NVIDIA GPU, install its driver, or a newer one");
  CHECK(error_of([] { cuda::open(0); }) == cuda::missing());
  restart({.devices = 0});
  CHECK(cuda::device_count() == 0);
  CHECK(cuda::missing() ==
        "cuda: cannot find a device: no CUDA-capable device is detected (cudaErrorNoDevice); see what "
        "nvidia-smi and CUDA_VISIBLE_DEVICES say, or use a cpu strategy");
  CHECK(error_of([] { cuda::open(0); }) == cuda::missing());
  restart({.devices = 1});
  CHECK(error_of([] { cuda::open(1); }) == "cuda:1: there is no such device; this machine has one, cuda:0");
  restart({.devices = 3});
  CHECK(error_of([] { cuda::open(99); }) ==
        "cuda:99: there is no such device; this machine has cuda:0 to cuda:2");
  restart({});
}

TEST_CASE("faults: too little memory says how much is there, and what to do") {
  restart({.device_memory = 100'000'000});
  auto device = cuda::open(0);
  Buffer some = device->allocate(60'000'000);
  CHECK(error_of([&] { device->allocate(50'000'000); }) ==
        "cuda:0: not enough memory: 50.0 MB are wanted and 40.0 MB are free; keep fewer layers on the device "
        "(*N+), choose int8 or int4 (such as fp16i8), or close other programs there");
  CHECK(device->allocate(30'000'000).size() == 30'000'000);  // the next one is not affected
  emulator::fail_call(Operation::pinned_allocation, 1, cudaErrorMemoryAllocation);
  CHECK(
      error_of([&] { device->allocate_staging(5'000'000); }) ==
      "cuda:0: not enough host memory: 5.0 MB that the device can copy are wanted; close other programs, or "
      "stream fewer layers");
  CHECK(device->allocate_staging(100).size() == 100);
}

TEST_CASE("faults: a device that cannot be opened is left out, the others are used") {
  restart({.devices = 3});
  CHECK(usable_devices(1).size() == 4);
  const int calls = emulator::calls(Operation::any);
  size_t fewest = 4, most = 0;
  for (int n = 1; n <= calls; n++) {
    restart({.devices = 3});
    emulator::fail_call(Operation::any, n, cudaErrorUnknown);
    const size_t devices = usable_devices(1).size();
    fewest = std::min(fewest, devices);
    most = std::max(most, devices);
    CHECK(usable_devices(1).size() == 4);
  }
  CHECK(fewest == 1);  // none could be counted
  CHECK(most == 3);
  restart({});
}

TEST_CASE("faults: any call that fails gives one line, or is made good; nothing is left") {
  struct {
    Operation operation;
    cudaError_t error;
  } kinds[] = {
      {Operation::device_allocation, cudaErrorMemoryAllocation},
      {Operation::pinned_allocation, cudaErrorMemoryAllocation},
      {Operation::registration, cudaErrorNotSupported},
      {Operation::copy, cudaErrorUnknown},
      {Operation::launch, cudaErrorLaunchOutOfResources},
      {Operation::graph, cudaErrorNotSupported},
      {Operation::stream, cudaErrorMemoryAllocation},
      {Operation::event, cudaErrorUnknown},
      {Operation::synchronization, cudaErrorUnknown},
      {Operation::copy, cudaErrorIllegalAddress},  // this and the next stay
      {Operation::launch, cudaErrorLaunchFailure},
      {Operation::any, cudaErrorUnknown},
  };
  for (bool reachable : {true, false}) {
    emulator::Settings settings{.devices = 2, .peer_access = reachable};
    restart(settings);
    Result good = outcome();
    REQUIRE(good.error == "");
    for (const auto& kind : kinds) {
      restart(settings);
      outcome();
      int calls = emulator::calls(kind.operation);
      CHECK(calls > 0);
      for (int n = 1; n <= calls; n++) {
        CAPTURE(static_cast<int>(kind.operation));
        CAPTURE(n);
        restart(settings);
        emulator::fail_call(kind.operation, n, kind.error);
        Result result = outcome();
        if (result.error.empty()) {
          CHECK(same_bits(result.values, good.values));
        } else {
          CHECK(is_line(result.error));
          CHECK(result.error.starts_with("cuda"));
        }
        CHECK(emulator::live().total() == 0);
      }
    }
  }
  restart({});
}

TEST_SUITE_END();

}  // namespace rwkv::test
