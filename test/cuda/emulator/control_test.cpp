// Settings, counters, planned failures, and the simulated clock.
#include "cuda/emulator/control.h"

#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

__global__ void load(const float* in, float* out, int count) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
    sum += __ldg(in + i);
  atomicAdd(out, sum);
}

__global__ void barriers() {
  __syncthreads();
  __syncwarp();
}

__global__ void __launch_bounds__(64) bounded(int* out) { *out = 1; }
template <int threads>
__global__ __launch_bounds__(threads, 2) void bounded_template(int* out) {
  *out = threads;
}

// A program that allocates, copies, launches and waits, and gives everything back whatever fails.
cudaError_t small_program() {
  float *device = nullptr, *pinned = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  std::vector<float> host(32, 1);
  bool registered = false;
  const auto run = [&]() -> cudaError_t {
    cudaError_t error = cudaSuccess;
    const auto good = [&error](cudaError_t e) { return (error = e) == cudaSuccess; };
    if (!good(cudaMalloc(&device, 128)) || !good(cudaMallocHost(&pinned, 128)) ||
        !good(cudaHostRegister(host.data(), 128, cudaHostRegisterDefault))) {
      return error;
    }
    registered = true;
    if (!good(cudaStreamCreate(&stream)) || !good(cudaEventCreate(&event)) ||
        !good(cudaMemcpyAsync(device, host.data(), 128, cudaMemcpyHostToDevice, stream)) ||
        !good(launch_in(stream, load, 1, 32, 0, static_cast<const float*>(device), pinned, 32)) ||
        !good(cudaEventRecord(event, stream)) || !good(cudaEventSynchronize(event))) {
      return error;
    }
    return cudaSuccess;
  };
  const cudaError_t error = run();
  cudaStreamSynchronize(stream);
  if (event != nullptr) cudaEventDestroy(event);
  if (stream != nullptr) cudaStreamDestroy(stream);
  if (registered) cudaHostUnregister(host.data());
  cudaFreeHost(pinned);
  cudaFree(device);
  return error;
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("each call of a program can be let fail, and what leaks is counted") {
  emulator::configure(quiet());
  REQUIRE(small_program() == cudaSuccess);
  CHECK(emulator::live().total() == 0);
  using emulator::Operation;
  const struct {
    Operation operation;
    cudaError_t error;
  } plans[] = {{Operation::device_allocation, cudaErrorMemoryAllocation},
               {Operation::pinned_allocation, cudaErrorMemoryAllocation},
               {Operation::registration, cudaErrorNotSupported},
               {Operation::stream, cudaErrorMemoryAllocation},
               {Operation::event, cudaErrorMemoryAllocation},
               {Operation::copy, cudaErrorInvalidValue},
               {Operation::launch, cudaErrorLaunchOutOfResources},
               {Operation::synchronization, cudaErrorUnknown}};
  for (const auto& plan : plans) {
    emulator::configure(quiet());
    REQUIRE(small_program() == cudaSuccess);
    const int calls = emulator::calls(plan.operation);
    REQUIRE(calls > 0);
    for (int n = 1; n <= calls; n++) {
      emulator::configure(quiet());
      emulator::fail_call(plan.operation, n, plan.error);
      const cudaError_t error = small_program();
      // The last synchronization is the cleaning up.
      if (plan.operation != Operation::synchronization || n < calls) CHECK(error == plan.error);
      CHECK(emulator::live().total() == 0);
      CHECK(small_program() == cudaSuccess);
    }
  }
  emulator::configure(quiet());
  void* leak = nullptr;
  REQUIRE(cudaMalloc(&leak, 1) == cudaSuccess);
  CHECK(emulator::live().device_allocations == 1);
  CHECK(emulator::live().total() == 1);
}

TEST_CASE("a failed launch stays an error for every later call") {
  emulator::configure(quiet());
  emulator::fail_call(emulator::Operation::launch, 1, cudaErrorLaunchFailure);
  CHECK(launch(barriers, 1, 32) == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaPeekAtLastError() == cudaErrorLaunchFailure);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 1) == cudaErrorLaunchFailure);
  emulator::configure(quiet());
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaMalloc(&memory, 1) == cudaSuccess);
}

TEST_CASE("a launch with sizes that no device takes is refused") {
  const struct {
    dim3 grid, block;
  } cases[] = {{1, 1025}, {1, dim3(32, 33)},    {1, dim3(1, 1, 65)},    {1, 0},
               {0, 32},   {dim3(1, 65536), 32}, {dim3(1, 1, 65536), 32}};
  for (const auto& one : cases) {
    emulator::configure(quiet());
    CHECK(launch(barriers, one.grid, one.block) == cudaErrorInvalidConfiguration);
    CHECK_MESSAGE(has(emulator::report(), "barriers"), emulator::report());
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    CHECK(launch(barriers, 1, dim3(8, 4, 32)) == cudaSuccess);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
  }
}

TEST_CASE("a launch with more threads than __launch_bounds__ allow is refused") {
  const auto launch_with = [](auto kernel, unsigned threads) {
    emulator::configure(quiet());
    return launch(kernel, 1, threads, allocate<int>(1));
  };
  CHECK(launch_with(bounded, 64) == cudaSuccess);
  CHECK(launch_with(bounded, 65) == cudaErrorInvalidConfiguration);
  CHECK_MESSAGE(has(emulator::report(),
                    "bounded on device 0: 65 threads in a block, more than its "
                    "__launch_bounds__ of 64"),
                emulator::report());
  CHECK(launch_with(bounded_template<256>, 256) == cudaSuccess);
  CHECK(launch_with(bounded_template<256>, 288) == cudaErrorInvalidConfiguration);
  CHECK(launch_with(bounded_template<1024>, 1024) == cudaSuccess);
}

TEST_CASE("versions, attributes and occupancy are those of a small device") {
  Settings settings = quiet();
  settings.driver = false;
  emulator::configure(settings);
  int value = -1;
  CHECK(cudaDriverGetVersion(&value) == cudaSuccess);
  CHECK(value == 0);
  CHECK(cudaRuntimeGetVersion(&value) == cudaSuccess);
  CHECK(value == 13000);
  settings.driver = true;
  settings.register_read_only = false;
  settings.device_bandwidth = 640e9;
  emulator::configure(settings);
  CHECK(cudaDriverGetVersion(&value) == cudaSuccess);
  CHECK(value == 13000);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrHostRegisterReadOnlySupported, 0) == cudaSuccess);
  CHECK(value == 0);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMemoryClockRate, 0) == cudaSuccess);
  CHECK(value == 10000000);  // kHz, 256 bits, twice a clock
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 1) == cudaErrorInvalidDevice);
  CHECK(cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(1), 0) == cudaErrorInvalidValue);
  const struct {
    int threads;
    size_t shared;
    int blocks;
  } cases[] = {{256, 0, 4}, {32, 0, 16}, {33, 0, 16}, {96, 0, 10}, {256, 20 * 1024, 3}, {1024, 1, 1}};
  for (const auto& one : cases) {
    CAPTURE(one.threads);
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, barriers, one.threads, one.shared) ==
          cudaSuccess);
    CHECK(value == one.blocks);
  }
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, barriers, 1025, 0) == cudaErrorInvalidValue);
}

TEST_CASE("several host threads may use the device") {
  emulator::configure(quiet());
  std::vector<float> sums(4, 0);
  std::vector<std::thread> threads;
  for (float& sum : sums) {
    threads.emplace_back([&sum] {
      cudaStream_t stream = nullptr;
      float *in = nullptr, *out = nullptr;
      const std::vector<float> ones(100, 1);
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
      cudaMalloc(&in, 400);
      cudaMalloc(&out, 4);
      for (int i = 0; i < 20; i++) {
        cudaMemcpyAsync(in, ones.data(), 400, cudaMemcpyHostToDevice, stream);
        cudaMemsetAsync(out, 0, 4, stream);
        launch_in(stream, load, 2, 64, 0, static_cast<const float*>(in), out, 100);
        cudaMemcpyAsync(&sum, out, 4, cudaMemcpyDeviceToHost, stream);
      }
      cudaStreamDestroy(stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(sums == std::vector<float>(4, 200));
  CHECK(emulator::report().empty());
  CHECK(emulator::counters().launches == 80);
}

TEST_CASE("no driver, no device, and a device number too high are errors of the calls") {
  Settings settings = quiet();
  int count = -1;
  settings.driver = false;
  emulator::configure(settings);
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  CHECK(count == 0);
  settings.driver = true;
  settings.devices = 0;
  emulator::configure(settings);
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  settings.devices = 3;
  emulator::configure(settings);
  REQUIRE(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(count == 3);
  CHECK(cudaSetDevice(2) == cudaSuccess);
  CHECK(cudaSetDevice(3) == cudaErrorInvalidDevice);
  CHECK(std::string(cudaGetErrorName(cudaGetLastError())) == "cudaErrorInvalidDevice");
  CHECK(std::string(cudaGetErrorString(cudaErrorInvalidDevice)) == "invalid device ordinal");
  CHECK(cudaGetDevice(&count) == cudaSuccess);
  CHECK(count == 2);
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 2) == cudaSuccess);
  CHECK(properties.totalGlobalMem == settings.device_memory);
  CHECK(cudaGetDeviceProperties(&properties, 3) == cudaErrorInvalidDevice);
}

TEST_CASE("settings come from the environment, and a report quotes them") {
  REQUIRE(setenv("CUDA_EMULATOR", "seed=77 order=by-warp streams=rush devices=2", 1) == 0);
  const Settings settings = emulator::settings_from_environment();
  CHECK(settings.seed == 77);
  CHECK(settings.order == Order::by_warp);
  CHECK(settings.streams == Streams::rush);
  CHECK(settings.devices == 2);
  for (const char* wrong : {"seed=", "seed=x", "order=some", "streams", "devices=9", "speed=1"}) {
    CAPTURE(wrong);
    REQUIRE(setenv("CUDA_EMULATOR", wrong, 1) == 0);
    CHECK_THROWS_AS(emulator::settings_from_environment(), std::invalid_argument);
  }
  REQUIRE(unsetenv("CUDA_EMULATOR") == 0);
  emulator::configure(quiet(77, Order::by_warp, Streams::rush));
  launch(barriers, 1, 2000);
  CHECK_MESSAGE(has(emulator::report(), "CUDA_EMULATOR=\"seed=77 order=by-warp streams=rush\""),
                emulator::report());
}

TEST_CASE("bytes, launches, barriers and loads are counted") {
  emulator::configure(quiet());
  float* in = upload(std::vector<float>(1000, 1));
  float* out = upload(std::vector<float>(1, 0));
  launch(load, 2, 64, static_cast<const float*>(in), out, 1000);
  launch(barriers, 3, 64);
  CHECK(download(out, 1)[0] == 2000);
  cudaMemcpy(in, in + 500, 400, cudaMemcpyDeviceToDevice);
  const emulator::Counters counters = emulator::counters();
  CHECK(counters.launches == 2);
  CHECK(counters.host_to_device_bytes == 4004);
  CHECK(counters.device_to_host_bytes == 4);
  CHECK(counters.device_to_device_bytes == 400);
  CHECK(counters.kernel_load_bytes == 8000);
  CHECK(counters.barriers == 192);
  CHECK(counters.warp_primitives == 192);
  emulator::reset_counters();
  CHECK(emulator::counters().launches == 0);
}

// Copies of one second and kernels of two, in as many streams as asked.
double seconds_of_pipeline(Streams streams, bool overlapped, int layers) {
  Settings settings = quiet(1, Order::ascending, streams);
  constexpr size_t bytes = 4096;
  settings.link_bandwidth = bytes;
  settings.device_bandwidth = bytes / 2.0;
  settings.kernel_seconds = 0;
  emulator::configure(settings);
  cudaStream_t compute = nullptr, transfer = nullptr;
  cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&transfer, cudaStreamNonBlocking);
  if (!overlapped) transfer = compute;
  float *slots[2], *pinned = nullptr;
  cudaEvent_t filled[2], free[2];
  for (int i = 0; i < 2; i++) {
    slots[i] = allocate<float>(bytes / sizeof(float));
    cudaEventCreate(&filled[i]);
    cudaEventCreate(&free[i]);
  }
  auto* out = allocate<float>(1);
  REQUIRE(cudaMallocHost(&pinned, bytes) == cudaSuccess);
  std::fill(pinned, pinned + bytes / sizeof(float), 1.0f);
  for (int layer = 0; layer < layers; layer++) {
    const int slot = layer % 2;
    cudaStreamWaitEvent(transfer, free[slot]);
    cudaMemcpyAsync(slots[slot], pinned, bytes, cudaMemcpyHostToDevice, transfer);
    cudaEventRecord(filled[slot], transfer);
    cudaStreamWaitEvent(compute, filled[slot]);
    launch_in(compute, load, 1, 32, 0, static_cast<const float*>(slots[slot]), out,
              static_cast<int>(bytes / sizeof(float)));
    cudaEventRecord(free[slot], compute);
  }
  cudaStreamSynchronize(compute);
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime(&milliseconds, filled[0], free[(layers - 1) % 2]) == cudaSuccess);
  CHECK(milliseconds > 0);
  return emulator::simulated_seconds();
}

TEST_CASE("the simulated clock shows overlap, whatever the order of execution") {
  for (const Streams streams : policies) {
    CHECK(seconds_of_pipeline(streams, false, 10) == doctest::Approx(30.0));
    CHECK(seconds_of_pipeline(streams, true, 10) == doctest::Approx(21.0));
  }
}

TEST_CASE("the simulated clock counts waits of the host, and one thing at a time per engine") {
  Settings settings = quiet();
  settings.link_bandwidth = 400;
  emulator::configure(settings);
  cudaStream_t streams[2];
  float* pinned = nullptr;
  auto* device = allocate<float>(100);
  REQUIRE(cudaMallocHost(&pinned, 400) == cudaSuccess);
  for (auto& stream : streams) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  const auto copy_both_ways = [&](bool wait) {
    emulator::reset_counters();
    cudaMemcpyAsync(device, pinned, 400, cudaMemcpyHostToDevice, streams[0]);
    if (wait) cudaStreamSynchronize(streams[0]);
    cudaMemcpyAsync(pinned, device, 400, cudaMemcpyDeviceToHost, streams[1]);
    return emulator::simulated_seconds();
  };
  CHECK(copy_both_ways(false) == doctest::Approx(1.0));
  CHECK(copy_both_ways(true) == doctest::Approx(2.0));
  emulator::reset_counters();
  for (auto* stream : streams) cudaMemcpyAsync(device, pinned, 400, cudaMemcpyHostToDevice, stream);
  CHECK(emulator::simulated_seconds() == doctest::Approx(2.0));
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
