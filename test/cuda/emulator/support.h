// What the tests of the emulated device share: settings to run under, launches, memory.
#pragma once

#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/emulator/control.h"

namespace rwkv::test::emulated {

using emulator::Order;
using emulator::Settings;
using emulator::Streams;

constexpr Order orders[] = {Order::ascending, Order::descending, Order::by_warp, Order::random};
constexpr Streams policies[] = {Streams::eager, Streams::late, Streams::rush, Streams::random};

inline Settings quiet(uint64_t seed = 1, Order order = Order::random, Streams streams = Streams::random) {
  Settings settings;
  settings.seed = seed;
  settings.order = order;
  settings.streams = streams;
  settings.print_reports = false;
  settings.device_memory = 64 << 20;
  return settings;
}

template <class... P, class... A>
cudaError_t launch_in(cudaStream_t stream, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                      A... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, A... arguments) {
  return launch_in(nullptr, kernel, grid, block, 0, arguments...);
}

/// Device memory for `count` values.
template <class T>
T* allocate(size_t count) {
  T* pointer = nullptr;
  REQUIRE(cudaMalloc(&pointer, count * sizeof(T)) == cudaSuccess);
  return pointer;
}

template <class T>
T* upload(const std::vector<T>& values) {
  T* pointer = allocate<T>(values.size());
  REQUIRE(cudaMemcpy(pointer, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) ==
          cudaSuccess);
  return pointer;
}

/// The values when all work has ended; empty after an error.
template <class T>
std::vector<T> download(const T* pointer, size_t count) {
  std::vector<T> values(count);
  if (cudaDeviceSynchronize() != cudaSuccess) return {};
  if (cudaMemcpy(values.data(), pointer, count * sizeof(T), cudaMemcpyDeviceToHost) != cudaSuccess) return {};
  return values;
}

inline std::vector<float> ascending(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = static_cast<float>(i);
  return values;
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Under 250 seeds for each order of threads: 1000 runs.
template <class Action>
void for_all_orders(Action action, int seeds = 250) {
  for (const Order order : orders) {
    for (int seed = 1; seed <= seeds; seed++) {
      emulator::configure(quiet(static_cast<uint64_t>(seed), order));
      action();
    }
  }
}

/// What a child process writes before the action kills or ends it, and whether it was killed or failed.
struct Ending {
  std::string output;
  bool died;
};
Ending in_child(void (*action)());

}  // namespace rwkv::test::emulated
