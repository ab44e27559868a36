// Graphs: what capture forbids, and that a launched graph is work of streams like any other.
#include <thread>

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

constexpr int count = 64;
constexpr size_t bytes = count * sizeof(float);
constexpr auto strict = cudaStreamCaptureModeThreadLocal;

__global__ void fill(float* out, float value) { out[threadIdx.x] = value; }
__global__ void add(float* out, const float* in) { out[threadIdx.x] += in[threadIdx.x]; }

void start_fill(cudaStream_t stream, float* out, float value) {
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

bool sum_is(const Program& p, float expected) {
  cudaStreamSynchronize(p.compute);
  std::vector<float> result(count);
  cudaMemcpyAsync(result.data(), p.sum, bytes, cudaMemcpyDeviceToHost, p.compute);
  return result == std::vector<float>(count, expected) && emulator::report().empty();
}

// --- Each takes `correct` and says whether the numbers are right ---

// In the graph, the kernel must wait for the copy of the other branch.
bool wait_for_filled(bool correct) {
  Program p;
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
  Program p;
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
  Program p;
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
  Program p;
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
  Program p;
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
    Program p;
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
    Program p;
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

TEST_CASE("what a graph cannot hold is an error of the call and of the end of the capture") {
  using Call = cudaError_t (*)(const Program&);
  static std::vector<float> pageable(count);
  static void* memory = nullptr;
  const struct {
    Call call;
    cudaError_t error;
  } forbidden[] = {
      {[](const Program& p) { return cudaStreamSynchronize(p.compute); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaStreamQuery(p.compute); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaStreamDestroy(p.compute); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program&) { return cudaDeviceSynchronize(); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program&) { return cudaMalloc(&memory, 1); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program&) { return cudaMallocHost(&memory, 1); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaFree(p.slot); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaFreeHost(p.pinned); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program&) { return cudaHostRegister(pageable.data(), bytes, 0); },
       cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaMemcpy(p.slot, p.pinned, bytes, cudaMemcpyHostToDevice); },
       cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaMemset(p.slot, 0, bytes); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) {
         return cudaMemcpyAsync(p.slot, pageable.data(), bytes, cudaMemcpyHostToDevice, p.compute);
       },
       cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) {
         return cudaMemcpyAsync(pageable.data(), p.slot, bytes, cudaMemcpyDeviceToHost, p.compute);
       },
       cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaEventQuery(p.free); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) { return cudaEventSynchronize(p.free); }, cudaErrorStreamCaptureUnsupported},
      {[](const Program& p) {
         cudaEventRecord(p.filled, p.compute);
         return cudaEventQuery(p.filled);
       },
       cudaErrorCapturedEvent},
      {[](const Program& p) {
         cudaEventRecord(p.filled, p.compute);
         return cudaEventSynchronize(p.filled);
       },
       cudaErrorCapturedEvent},
      {[](const Program& p) {
         cudaEventRecord(p.free, p.transfer);
         return cudaStreamWaitEvent(p.compute, p.free);
       },
       cudaErrorStreamCaptureIsolation},
      {[](const Program& p) { return cudaStreamWaitEvent(p.compute, p.free); },
       cudaErrorStreamCaptureIsolation},
      {[](const Program& p) { return launch(fill, 1, count, p.slot, 1.0f); }, cudaErrorStreamCaptureImplicit},
      {[](const Program& p) { return cudaMemsetAsync(p.slot, 0, bytes); }, cudaErrorStreamCaptureImplicit},
      {[](const Program&) { return cudaStreamSynchronize(nullptr); }, cudaErrorStreamCaptureImplicit},
      {[](const Program& p) { return cudaEventRecord(p.free); }, cudaErrorStreamCaptureImplicit},
      {[](const Program& p) {
         p.fork_transfer();
         cudaGraph_t graph = nullptr;
         return cudaStreamEndCapture(p.transfer, &graph);
       },
       cudaErrorStreamCaptureUnmatched},
      {[](const Program& p) {
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
    Program p(cudaStreamDefault);
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
  Program p;
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
      Program p;
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
  Program p;
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

TEST_CASE("a graph whose memory was freed is refused with its kernel's or copy's name") {
  using Free = void (*)(const Program&);
  const struct {
    Free free;
    const char* words;
  } mistakes[] = {
      {[](const Program& p) { cudaFree(p.sum); },
       "kernel rwkv::test::emulated::add, argument 1: the address"},
      {[](const Program& p) { cudaFreeHost(p.pinned); }, "a copy of 256 bytes from freed memory"},
  };
  for (const auto& one : mistakes) {
    emulator::configure(quiet());
    Program p;
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
  Program p;
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
  Program p;
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
  Program p;
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
