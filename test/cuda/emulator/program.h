// What a program may have: two streams, two events, memory on both sides; one stream copies, the other one
// computes with what is copied.
#pragma once

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

constexpr int count = 64;
constexpr size_t bytes = count * sizeof(float);

inline __global__ void fill(float* out, float value) { out[threadIdx.x] = value; }
inline __global__ void add(float* out, const float* in) { out[threadIdx.x] += in[threadIdx.x]; }

inline void start_fill(cudaStream_t stream, float* out, float value) {
  launch_in(stream, fill, 1, count, 0, out, value);
}

struct Program {
  cudaStream_t compute = nullptr, transfer = nullptr;
  cudaEvent_t filled = nullptr, free = nullptr;
  float *slot = nullptr, *sum = nullptr, *pinned = nullptr;

  explicit Program(unsigned flags = cudaStreamNonBlocking) {
    REQUIRE(cudaStreamCreateWithFlags(&compute, flags) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&transfer, flags) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&free, cudaEventDisableTiming) == cudaSuccess);
    slot = allocate<float>(count);
    sum = allocate<float>(count);
    REQUIRE(cudaMallocHost(&pinned, bytes) == cudaSuccess);
  }

  void fill_pinned(float value) const { std::fill(pinned, pinned + count, value); }
  void start_copy(cudaStream_t stream) const {
    cudaMemcpyAsync(slot, pinned, bytes, cudaMemcpyHostToDevice, stream);
  }
  void start_add(cudaStream_t stream) const {
    launch_in(stream, add, 1, count, 0, sum, static_cast<const float*>(slot));
  }
};

/// Is the sum as expected, when the compute stream has ended?
inline bool sum_is(const Program& p, float expected) {
  cudaStreamSynchronize(p.compute);
  std::vector<float> result(count);
  cudaMemcpyAsync(result.data(), p.sum, bytes, cudaMemcpyDeviceToHost, p.compute);
  const bool same = result == std::vector<float>(count, expected);
  return same && emulator::report().empty();
}

}  // namespace rwkv::test::emulated
