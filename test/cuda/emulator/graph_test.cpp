// Graphs: a launched graph is work of streams like any other.
#include "test/cuda/emulator/graph_program.h"

namespace rwkv::test::emulated {

namespace {

// In the graph, the kernel must wait for the copy of the other branch.
bool wait_for_filled(bool correct) {
  GraphProgram p;
  p.fill_pinned(3);
  p.begin();
  p.fork_transfer();
  p.start_copy(p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  start_fill(p.compute, p.sum, 1);
  if (correct) cudaStreamWaitEvent(p.compute, p.filled);
  p.start_add(p.compute);
  cudaStreamWaitEvent(p.compute, p.filled);
  p.end();
  p.run(p.compute);
  return sum_is(p, 4);
}

// In the graph, the other branch must wait for the kernel that still reads what it overwrites.
bool wait_for_free(bool correct) {
  GraphProgram p;
  p.begin();
  start_fill(p.compute, p.slot, 5);
  start_fill(p.compute, p.sum, 1);
  p.fork_transfer();
  p.start_add(p.compute);
  cudaEventRecord(p.free, p.compute);
  if (correct) cudaStreamWaitEvent(p.transfer, p.free);
  cudaMemsetAsync(p.slot, 0, bytes, p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  cudaStreamWaitEvent(p.compute, p.filled);
  p.end();
  p.run(p.compute);
  return sum_is(p, 6);
}

// Pinned memory is read when the node runs, not when it is captured or launched.
bool reuse_pinned(bool correct) {
  GraphProgram p;
  start_fill(p.compute, p.sum, 1);
  p.begin();
  p.start_copy(p.compute);
  p.start_add(p.compute);
  p.end();
  for (const float value : {3.0f, 4.0f}) {
    if (correct) cudaStreamSynchronize(p.compute);
    p.fill_pinned(value);
    p.run(p.compute);
  }
  return sum_is(p, 8);
}

// A graph comes after what its stream had, and after nothing else.
bool wait_before_launch(bool correct) {
  GraphProgram p;
  p.fill_pinned(3);
  p.begin();
  p.start_add(p.compute);
  p.end();
  p.start_copy(p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  start_fill(p.compute, p.sum, 1);
  if (correct) cudaStreamWaitEvent(p.compute, p.filled);
  p.run(p.compute);
  return sum_is(p, 4);
}

// What comes after a graph in its stream comes after all of its branches.
bool work_after_launch(bool correct) {
  GraphProgram p;
  p.fill_pinned(3);
  p.begin();
  p.fork_transfer();
  p.start_copy(p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  cudaStreamWaitEvent(p.compute, p.filled);
  p.end();
  start_fill(p.compute, p.sum, 1);
  p.run(correct ? p.compute : p.transfer);
  p.start_add(p.compute);
  return sum_is(p, 4);
}

struct Case {
  std::string name;
  bool (*run)(bool correct);
};
const Case cases[] = {
    {"missing wait for a copy", wait_for_filled},      {"missing wait before overwriting", wait_for_free},
    {"pinned memory reused too early", reuse_pinned},  {"missing wait before a launch", wait_before_launch},
    {"launched in another stream", work_after_launch},
};

// Captures a graph of one kernel, launches it, and gives everything back whatever fails.
cudaError_t small_program() {
  float* device = nullptr;
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaSuccess;
  const auto good = [&error](cudaError_t e) {
    if (error == cudaSuccess) error = e;
    return e == cudaSuccess;
  };
  if (good(cudaMalloc(&device, bytes)) && good(cudaStreamCreate(&stream)) &&
      good(cudaStreamBeginCapture(stream, strict))) {
    good(launch_in(stream, fill, 1, count, 0, device, 1.0f));
    good(cudaStreamEndCapture(stream, &graph));
    if (error == cudaSuccess && good(cudaGraphInstantiate(&executable, graph)))
      good(cudaGraphLaunch(executable, stream));
  }
  cudaDeviceSynchronize();
  if (executable != nullptr) cudaGraphExecDestroy(executable);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (stream != nullptr) cudaStreamDestroy(stream);
  cudaFree(device);
  return error;
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("mistakes of ordering in and around graphs are found; corrected, all is well") {
  for (const Case& one : cases) {
    CAPTURE(one.name);
    const auto right = [&](bool correct, Streams streams, uint64_t seed) {
      emulator::configure(quiet(seed, Order::ascending, streams));
      return one.run(correct);
    };
    CHECK((!right(false, Streams::late, 1) || !right(false, Streams::rush, 1)));
    int found = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) found += right(false, Streams::random, seed) ? 0 : 1;
    CHECK(found >= 10);
    for (const Streams streams : {Streams::eager, Streams::late, Streams::rush})
      CHECK(right(true, streams, 1));
    for (uint64_t seed = 1; seed <= 1000; seed++) {
      CAPTURE(seed);
      REQUIRE_MESSAGE(right(true, Streams::random, seed), emulator::report());
    }
  }
}

TEST_CASE("captured work runs when the graph is launched, each time, with the arguments of the capture") {
  for (const Streams streams : policies) {
    emulator::configure(quiet(1, Order::ascending, streams));
    GraphProgram p;
    CHECK(p.status() == cudaStreamCaptureStatusNone);
    p.begin();
    CHECK(p.status() == cudaStreamCaptureStatusActive);
    float value = 2;
    start_fill(p.compute, p.slot, value);
    value = 9;
    p.start_add(p.compute);
    cudaMemsetAsync(p.slot, 0, bytes, p.compute);
    cudaMemcpyAsync(p.slot, p.sum, bytes, cudaMemcpyDeviceToDevice, p.compute);
    p.end();
    CHECK(p.status() == cudaStreamCaptureStatusNone);
    start_fill(p.compute, p.sum, 1);
    CHECK(sum_is(p, 1));
    CHECK(emulator::counters().launches == 1);
    for (int i = 0; i < 3; i++) CHECK(p.run(i % 2 == 0 ? p.compute : p.transfer) == cudaSuccess);
    cudaStreamSynchronize(p.transfer);
    CHECK(sum_is(p, 7));
    const emulator::Counters counters = emulator::counters();
    CHECK(counters.launches == 7);
    CHECK(counters.graph_launches == 3);
    CHECK(counters.device_to_device_bytes == 3 * bytes);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(emulator::live().executables == 1);
    CHECK(emulator::live().graphs == 0);
    CHECK(emulator::live().streams == 2);
    CHECK(cudaGraphExecDestroy(p.executable) == cudaSuccess);
    CHECK(emulator::live().executables == 0);
    CHECK(p.run(p.compute) == cudaErrorInvalidValue);
  }
}

TEST_CASE("launches of one executable graph follow each other, whatever their streams") {
  for (uint64_t seed = 1; seed <= 200; seed++) {
    emulator::configure(quiet(seed));
    GraphProgram p;
    p.begin();
    p.start_add(p.compute);
    cudaMemcpyAsync(p.slot, p.sum, bytes, cudaMemcpyDeviceToDevice, p.compute);
    p.end();
    start_fill(p.compute, p.sum, 1);
    start_fill(p.compute, p.slot, 1);
    cudaStreamSynchronize(p.compute);
    for (int i = 0; i < 4; i++) p.run(i % 2 == 0 ? p.compute : p.transfer);
    cudaStreamSynchronize(p.transfer);
    REQUIRE(sum_is(p, 16));
  }
}

TEST_CASE("a graph whose memory was freed is refused with its kernel's or copy's name") {
  using Free = void (*)(const GraphProgram&);
  const struct {
    Free free;
    const char* words;
  } mistakes[] = {
      {[](const GraphProgram& p) { cudaFree(p.sum); },
       "kernel rwkv::test::emulated::add, argument 1: the address"},
      {[](const GraphProgram& p) { cudaFreeHost(p.pinned); }, "a copy of 256 bytes from freed memory"},
  };
  for (const auto& one : mistakes) {
    emulator::configure(quiet());
    GraphProgram p;
    p.begin();
    p.start_copy(p.compute);
    p.start_add(p.compute);
    p.end();
    one.free(p);
    CHECK(p.run(p.compute) == cudaErrorIllegalAddress);
    CHECK_MESSAGE(has(emulator::report(), one.words), emulator::report());
    CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  }
}

TEST_CASE("an executable graph must not be destroyed while it runs") {
  emulator::configure(quiet(1, Order::ascending, Streams::late));
  GraphProgram p;
  p.begin();
  p.start_copy(p.compute);
  p.end();
  p.run(p.compute);
  CHECK(cudaGraphExecDestroy(p.executable) == cudaErrorInvalidValue);
  CHECK_MESSAGE(has(emulator::report(), "before the work of its last launch was done"), emulator::report());
  CHECK(cudaStreamSynchronize(p.compute) == cudaSuccess);
  CHECK(cudaGraphExecDestroy(p.executable) == cudaSuccess);
}

TEST_CASE("each call of a program with a graph can be let fail, and nothing leaks") {
  using emulator::Operation;
  const struct {
    Operation operation;
    cudaError_t error;
  } plans[] = {{Operation::graph, cudaErrorMemoryAllocation},
               {Operation::launch, cudaErrorLaunchOutOfResources},
               {Operation::launch, cudaErrorLaunchFailure},
               {Operation::stream, cudaErrorMemoryAllocation},
               {Operation::device_allocation, cudaErrorMemoryAllocation}};
  for (const auto& plan : plans) {
    emulator::configure(quiet());
    REQUIRE(small_program() == cudaSuccess);
    CHECK(emulator::live().total() == 0);
    const int calls = emulator::calls(plan.operation);
    REQUIRE(calls > 0);
    for (int n = 1; n <= calls; n++) {
      emulator::configure(quiet());
      emulator::fail_call(plan.operation, n, plan.error);
      CHECK(small_program() == plan.error);
      CHECK(emulator::live().total() == 0);
    }
  }
}

TEST_CASE("a graph spans devices, and is launched into a stream of either") {
  Settings settings = quiet();
  settings.devices = 2;
  emulator::configure(settings);
  GraphProgram p;
  cudaStream_t other = nullptr;
  cudaEvent_t done = nullptr;
  cudaSetDevice(1);
  REQUIRE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaEventCreate(&done) == cudaSuccess);
  auto* there = allocate<float>(count);
  p.begin();
  cudaEventRecord(p.fork, p.compute);
  cudaStreamWaitEvent(other, p.fork);
  launch_in(other, fill, 1, count, 0, there, 5.0f);
  cudaMemcpyPeerAsync(p.slot, 0, there, 1, bytes, other);
  cudaEventRecord(done, other);
  cudaSetDevice(0);
  start_fill(p.compute, p.sum, 1);
  cudaStreamWaitEvent(p.compute, done);
  p.start_add(p.compute);
  p.end();
  for (auto* stream : {p.compute, other}) {
    CHECK(p.run(stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(sum_is(p, 6));
  }
  CHECK(emulator::counters().peer_bytes == 2 * bytes);
}

TEST_CASE("the simulated clock charges kernels in graphs less, and lets branches overlap") {
  Settings settings = quiet();
  settings.kernel_seconds = 3;
  settings.graph_kernel_seconds = 2;
  settings.link_bandwidth = bytes / 4.0;
  emulator::configure(settings);
  GraphProgram p;
  p.begin();
  p.fork_transfer();
  p.start_copy(p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  start_fill(p.compute, p.sum, 1);
  cudaStreamWaitEvent(p.compute, p.filled);
  p.start_add(p.compute);
  p.end();
  emulator::reset_counters();
  p.run(p.compute);
  CHECK(emulator::simulated_seconds() == doctest::Approx(6));  // the copy and the second kernel
  p.run(p.compute);
  CHECK(emulator::simulated_seconds() == doctest::Approx(12));
  emulator::reset_counters();
  start_fill(p.compute, p.sum, 1);
  CHECK(emulator::simulated_seconds() == doctest::Approx(3));
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
