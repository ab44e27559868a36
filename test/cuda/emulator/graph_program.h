// A program with a graph: one stream copies, another one computes with what is copied.
#pragma once

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

constexpr int count = 64;
constexpr size_t bytes = count * sizeof(float);
constexpr auto strict = cudaStreamCaptureModeThreadLocal;

inline __global__ void fill(float* out, float value) { out[threadIdx.x] = value; }
inline __global__ void add(float* out, const float* in) { out[threadIdx.x] += in[threadIdx.x]; }

inline void start_fill(cudaStream_t stream, float* out, float value) {
  launch_in(stream, fill, 1, count, 0, out, value);
}

struct Program {
  cudaStream_t compute = nullptr, transfer = nullptr;
  cudaEvent_t fork = nullptr, filled = nullptr, free = nullptr;
  float *slot = nullptr, *sum = nullptr, *pinned = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;

  explicit Program(unsigned flags = cudaStreamNonBlocking) {
    for (auto* stream : {&compute, &transfer})
      REQUIRE(cudaStreamCreateWithFlags(stream, flags) == cudaSuccess);
    for (auto* event : {&fork, &filled, &free})
      REQUIRE(cudaEventCreateWithFlags(event, cudaEventDisableTiming) == cudaSuccess);
    slot = allocate<float>(count);
    sum = allocate<float>(count);
    REQUIRE(cudaMallocHost(&pinned, bytes) == cudaSuccess);
  }

  void fill_pinned(float value) const { std::fill(pinned, pinned + count, value); }
  void start_add(cudaStream_t stream) const {
    launch_in(stream, add, 1, count, 0, sum, static_cast<const float*>(slot));
  }
  void start_copy(cudaStream_t stream) const {
    cudaMemcpyAsync(slot, pinned, bytes, cudaMemcpyHostToDevice, stream);
  }
  void begin(cudaStreamCaptureMode mode = strict) const {
    REQUIRE(cudaStreamBeginCapture(compute, mode) == cudaSuccess);
  }
  // transfer takes part in the capture from here on.
  void fork_transfer() const {
    cudaEventRecord(fork, compute);
    cudaStreamWaitEvent(transfer, fork);
  }
  void end() {
    REQUIRE(cudaStreamEndCapture(compute, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
    REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
  }
  cudaError_t run(cudaStream_t stream) const { return cudaGraphLaunch(executable, stream); }
  [[nodiscard]] cudaStreamCaptureStatus status() const {
    cudaStreamCaptureStatus result{};
    CHECK(cudaStreamIsCapturing(compute, &result) == cudaSuccess);
    return result;
  }
};

inline bool sum_is(const Program& p, float expected) {
  cudaStreamSynchronize(p.compute);
  std::vector<float> result(count);
  cudaMemcpyAsync(result.data(), p.sum, bytes, cudaMemcpyDeviceToHost, p.compute);
  return result == std::vector<float>(count, expected) && emulator::report().empty();
}

// --- Each takes `correct` and says whether the numbers are right ---

}  // namespace rwkv::test::emulated
