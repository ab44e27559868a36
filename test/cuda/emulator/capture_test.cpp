// Capture: what it forbids, and how it begins and ends.
#include <thread>

#include "test/cuda/emulator/graph_program.h"

namespace rwkv::test::emulated {

TEST_SUITE_BEGIN("emulator");

TEST_CASE("what a graph cannot hold is an error of the call and of the end of the capture") {
  using Call = cudaError_t (*)(const GraphProgram&);
  static std::vector<float> pageable(count);
  static void* memory = nullptr;
  const struct {
    Call call;
    cudaError_t error;
  } forbidden[] = {
      {[](const GraphProgram& p) { return cudaStreamSynchronize(p.compute); },
       cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaStreamQuery(p.compute); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaStreamDestroy(p.compute); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram&) { return cudaDeviceSynchronize(); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram&) { return cudaMalloc(&memory, 1); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram&) { return cudaMallocHost(&memory, 1); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaFree(p.slot); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaFreeHost(p.pinned); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram&) { return cudaHostRegister(pageable.data(), bytes, 0); },
       cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaMemcpy(p.slot, p.pinned, bytes, cudaMemcpyHostToDevice); },
       cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaMemset(p.slot, 0, bytes); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) {
         return cudaMemcpyAsync(p.slot, pageable.data(), bytes, cudaMemcpyHostToDevice, p.compute);
       },
       cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) {
         return cudaMemcpyAsync(pageable.data(), p.slot, bytes, cudaMemcpyDeviceToHost, p.compute);
       },
       cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaEventQuery(p.free); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) { return cudaEventSynchronize(p.free); }, cudaErrorStreamCaptureUnsupported},
      {[](const GraphProgram& p) {
         cudaEventRecord(p.filled, p.compute);
         return cudaEventQuery(p.filled);
       },
       cudaErrorCapturedEvent},
      {[](const GraphProgram& p) {
         cudaEventRecord(p.filled, p.compute);
         return cudaEventSynchronize(p.filled);
       },
       cudaErrorCapturedEvent},
      {[](const GraphProgram& p) {
         cudaEventRecord(p.free, p.transfer);
         return cudaStreamWaitEvent(p.compute, p.free);
       },
       cudaErrorStreamCaptureIsolation},
      {[](const GraphProgram& p) { return cudaStreamWaitEvent(p.compute, p.free); },
       cudaErrorStreamCaptureIsolation},
      {[](const GraphProgram& p) { return launch(fill, 1, count, p.slot, 1.0f); },
       cudaErrorStreamCaptureImplicit},
      {[](const GraphProgram& p) { return cudaMemsetAsync(p.slot, 0, bytes); },
       cudaErrorStreamCaptureImplicit},
      {[](const GraphProgram&) { return cudaStreamSynchronize(nullptr); }, cudaErrorStreamCaptureImplicit},
      {[](const GraphProgram& p) { return cudaEventRecord(p.free); }, cudaErrorStreamCaptureImplicit},
      {[](const GraphProgram& p) {
         p.fork_transfer();
         cudaGraph_t graph = nullptr;
         return cudaStreamEndCapture(p.transfer, &graph);
       },
       cudaErrorStreamCaptureUnmatched},
      {[](const GraphProgram& p) {
         cudaStreamBeginCapture(p.transfer, strict);
         cudaEventRecord(p.free, p.transfer);
         const cudaError_t error = cudaStreamWaitEvent(p.compute, p.free);
         cudaGraph_t graph = nullptr;
         CHECK(cudaStreamEndCapture(p.transfer, &graph) == cudaErrorStreamCaptureInvalidated);
         return error;
       },
       cudaErrorStreamCaptureMerge},
  };
  for (const auto& one : forbidden) {
    emulator::configure(quiet());
    GraphProgram p(cudaStreamDefault);
    p.begin();
    start_fill(p.compute, p.slot, 1);
    CAPTURE(cudaGetErrorName(one.error));
    CAPTURE(&one - forbidden);
    CHECK(one.call(p) == one.error);
    CHECK(cudaGetLastError() != cudaSuccess);
    CHECK(p.status() == cudaStreamCaptureStatusInvalidated);
    CHECK(launch_in(p.compute, fill, 1, count, 0, p.slot, 1.0f) == cudaErrorStreamCaptureInvalidated);
    cudaGraph_t graph = reinterpret_cast<cudaGraph_t>(&p);  // NOLINT: a value to be overwritten
    CHECK(cudaStreamEndCapture(p.compute, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
    start_fill(p.compute, p.sum, 6);
    CHECK(sum_is(p, 6));
    CHECK(emulator::live().graphs == 0);
  }
}

TEST_CASE("streams that do not block the default stream leave it usable during a capture") {
  emulator::configure(quiet());
  GraphProgram p;
  p.begin();
  CHECK(launch(fill, 1, count, p.sum, 2.0f) == cudaSuccess);
  CHECK(cudaStreamSynchronize(nullptr) == cudaSuccess);
  CHECK(cudaStreamSynchronize(p.transfer) == cudaSuccess);
  p.end();
  CHECK(sum_is(p, 2));
}

TEST_CASE("the mode of a capture says whose calls are forbidden") {
  const struct {
    cudaStreamCaptureMode mode;
    cudaError_t here, elsewhere;
  } modes[] = {
      {cudaStreamCaptureModeGlobal, cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureUnsupported},
      {cudaStreamCaptureModeThreadLocal, cudaErrorStreamCaptureUnsupported, cudaSuccess},
      {cudaStreamCaptureModeRelaxed, cudaSuccess, cudaSuccess},
  };
  for (const auto& one : modes) {
    const auto try_calls = [&one](bool other_thread) {
      emulator::configure(quiet());
      GraphProgram p;
      p.begin(one.mode);
      cudaError_t errors[3]{};
      cudaGraph_t graph = nullptr;
      const auto calls = [&] {
        void* memory = nullptr;
        errors[0] = cudaMalloc(&memory, 1);
        errors[1] = cudaEventQuery(p.free);
        if (other_thread) errors[2] = cudaStreamEndCapture(p.compute, &graph);
      };
      if (other_thread) {
        std::thread(calls).join();
      } else {
        calls();
      }
      const cudaError_t expected = other_thread ? one.elsewhere : one.here;
      CHECK(errors[0] == expected);
      CHECK(errors[1] == expected);
      const bool relaxed = one.mode == cudaStreamCaptureModeRelaxed;
      if (other_thread) CHECK(errors[2] == (relaxed ? cudaSuccess : cudaErrorStreamCaptureWrongThread));
      if (other_thread && relaxed) return;
      CHECK(cudaStreamEndCapture(p.compute, &graph) ==
            (expected == cudaSuccess ? cudaSuccess : cudaErrorStreamCaptureInvalidated));
    };
    try_calls(false);
    try_calls(true);
  }
}

TEST_CASE("a capture begins and ends where it may, with all its streams joined") {
  emulator::configure(quiet());
  GraphProgram p;
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamBeginCapture(nullptr, strict) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(p.compute, &graph) == cudaErrorIllegalState);
  p.begin();
  CHECK(cudaStreamBeginCapture(p.compute, strict) == cudaErrorIllegalState);
  p.fork_transfer();
  p.start_copy(p.transfer);
  CHECK(cudaStreamEndCapture(p.compute, &graph) == cudaErrorStreamCaptureUnjoined);
  CHECK(graph == nullptr);
  CHECK(cudaStreamSynchronize(p.transfer) == cudaSuccess);
  // The event stands for nodes of a capture that is over.
  CHECK(cudaEventQuery(p.fork) == cudaErrorCapturedEvent);
  CHECK(cudaEventSynchronize(p.fork) == cudaErrorCapturedEvent);
  CHECK(cudaStreamWaitEvent(p.compute, p.fork) == cudaErrorCapturedEvent);
  CHECK(cudaEventRecord(p.fork, p.compute) == cudaSuccess);
  CHECK(cudaEventSynchronize(p.fork) == cudaSuccess);
  // Joined over a third stream, and an empty graph.
  cudaStream_t third = nullptr;
  REQUIRE(cudaStreamCreate(&third) == cudaSuccess);
  p.begin();
  p.fork_transfer();
  p.start_copy(p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  cudaStreamWaitEvent(third, p.filled);
  cudaEventRecord(p.free, third);
  cudaStreamWaitEvent(p.compute, p.free);
  CHECK(cudaStreamEndCapture(p.compute, &graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaErrorInvalidValue);
  p.begin();
  p.end();
  CHECK(p.run(p.compute) == cudaSuccess);
  p.begin();
  CHECK(p.run(p.compute) == cudaErrorStreamCaptureUnsupported);
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
