// Fresh memory is poison, and shared memory has its bounds.
#include <algorithm>
#include <cmath>

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

__global__ void sum_unwritten_shared(float* out) {
  SHARED_ARRAY(float, values, 32);
  DYNAMIC_SHARED_ARRAY(float, more);
  out[threadIdx.x] = std::isnan(values[threadIdx.x]) && std::isnan(more[threadIdx.x]) ? 1.0f : 0.0f;
}

// Each block leaves its values to the next, which must not see them.
__global__ void stale_shared(float* out) {
  SHARED_ARRAY(float, value, 1);
  if (std::isnan(value[0])) atomicAdd(out, 1.0f);
  value[0] = 1;
}

template <int count>
__global__ void shared_bound(float* out, int index) {
  SHARED_ARRAY(float, values, count);
  float* pointer = values;
  pointer[index] = 1;
  out[0] = 1;
}

__global__ void dynamic_bound(float* out, int index) {
  DYNAMIC_SHARED_ARRAY(float, values);
  values[index] = 1;
  out[0] = 1;
}

template <int count>
__global__ void static_size(float* out) {
  SHARED_ARRAY(char, values, count);
  values[0] = 1;
  out[0] = values[0];
}

bool all_nan(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isnan(value); });
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("fresh memory is poison: device, pinned and shared, in every block") {
  for_all_orders(
      [] {
        auto* device = allocate<float>(100);
        float* pinned = nullptr;
        REQUIRE(cudaMallocHost(&pinned, 400) == cudaSuccess);
        REQUIRE(all_nan({pinned, pinned + 100}));
        REQUIRE(all_nan(download(device, 100)));
        cudaFree(device);
        device = allocate<float>(100);
        REQUIRE(all_nan(download(device, 100)));
        launch_in(nullptr, sum_unwritten_shared, 1, 32, 128, device);
        REQUIRE(download(device, 32) == std::vector<float>(32, 1));
        cudaMemset(device, 0, 4);
        launch(stale_shared, 5, 1, device);
        REQUIRE(download(device, 1)[0] == 5);
      },
      5);
}

TEST_CASE("writes beyond shared memory are found") {
  struct Case {
    void (*action)();
    const char* words;
  };
  const Case cases[] = {
      {[] { launch(shared_bound<8>, 1, 1, allocate<float>(1), 9); }, "a write outside the shared arrays"},
      {[] { launch(shared_bound<8>, 1, 1, allocate<float>(1), -1); }, "a write outside the shared arrays"},
      {[] { launch_in(nullptr, dynamic_bound, 1, 1, 32, allocate<float>(1), -1); },
       "a write outside the shared arrays"},
      {[] { launch_in(nullptr, dynamic_bound, 1, 1, 32, allocate<float>(1), 8); }, "a write at "},
  };
  static void (*action)() = nullptr;
  for (const Case& one : cases) {
    action = one.action;
    const Ending ending = in_child([] {
      emulator::configure(quiet());
      action();
      cudaDeviceSynchronize();
      fputs(emulator::report().c_str(), stdout);
      fflush(stdout);
    });
    CHECK_MESSAGE((has(ending.output, one.words) || has(ending.output, "use-after-poison")), ending.output);
  }
  for_all_orders(
      [] {
        auto* out = allocate<float>(1);
        launch(shared_bound<8>, 1, 1, out, 7);
        launch_in(nullptr, dynamic_bound, 1, 1, 32, out, 7);
        REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      },
      5);
}

TEST_CASE("shared memory has the limits of a device") {
  emulator::configure(quiet());
  launch(static_size<48 * 1024>, 1, 1, allocate<float>(1));
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  launch(static_size<48 * 1024 + 1>, 1, 1, allocate<float>(1));
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchOutOfResources);
  CHECK_MESSAGE(has(emulator::report(), "more than 49152 bytes of static shared memory"), emulator::report());

  emulator::configure(quiet());
  auto* out = allocate<float>(1);
  CHECK(launch_in(nullptr, dynamic_bound, 1, 1, 48 * 1024 + 1, out, 0) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(dynamic_bound, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024 + 1) ==
        cudaErrorInvalidValue);
  REQUIRE(cudaFuncSetAttribute(dynamic_bound, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024) ==
          cudaSuccess);
  launch_in(nullptr, dynamic_bound, 1, 1, 64 * 1024, out, 16 * 1024 - 1);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
