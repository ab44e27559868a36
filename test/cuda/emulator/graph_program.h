// The same with a graph.
#pragma once

#include "test/cuda/emulator/program.h"

namespace rwkv::test::emulated {

constexpr auto strict = cudaStreamCaptureModeThreadLocal;

struct GraphProgram : Program {
  cudaEvent_t fork = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;

  explicit GraphProgram(unsigned flags = cudaStreamNonBlocking) : Program(flags) {
    REQUIRE(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming) == cudaSuccess);
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

}  // namespace rwkv::test::emulated
