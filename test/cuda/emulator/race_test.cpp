// Races between threads of a kernel: the thread sanitizer, in a build with it, reports each; other builds
// report nothing here. And what must not compile.
#include "cuda/emulator/fiber.h"
#include "test/cuda/emulator/support.h"

namespace {

bool expected = false;
int races_seen = 0;

}  // namespace

// Or a second race at an address would not be seen.
extern "C" const char* __tsan_default_options();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __tsan_default_options() { return "suppress_equal_addresses=0"; }  // NOLINT

// The thread sanitizer asks here whether to keep a report to itself.
namespace __tsan {  // NOLINT(bugprone-reserved-identifier,readability-identifier-naming)

class ReportDesc;
bool OnReport(const ReportDesc* report, bool suppressed);       // NOLINT(readability-identifier-naming)
bool OnReport(const ReportDesc* /*report*/, bool suppressed) {  // NOLINT(readability-identifier-naming)
  races_seen++;
  return suppressed || expected;
}

}  // namespace __tsan

namespace rwkv::test::emulated {

namespace {

template <bool correct>
__global__ void neighbours(float* out) {
  SHARED_ARRAY(float, values, 64);
  values[threadIdx.x] = 1;
  if (correct) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = values[(threadIdx.x + 1) % 64];
}

// A shuffle meets the lanes, but is no fence.
template <bool correct>
__global__ void shuffle_as_fence(float* out) {
  SHARED_ARRAY(float, values, 32);
  values[threadIdx.x] = 1;
  const float sum = __shfl_sync(0xffffffff, 2.0f, 0);
  if (correct) __syncwarp();
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum + values[31 - threadIdx.x];
}

template <bool correct>
__global__ void count_blocks(float* out) {
  if (threadIdx.x != 0) return;
  if (correct) {
    atomicAdd(out, 1.0f);
  } else {
    *out += 1;
  }
}

template <class Kernel>
bool races(Kernel kernel, unsigned blocks, unsigned threads) {
  emulator::configure(quiet());
  auto* out = allocate<float>(256);
  cudaMemset(out, 0, 256 * sizeof(float));
  expected = true;
  races_seen = 0;
  // Twice: launches follow each other in order.
  launch(kernel, blocks, threads, out);
  launch(kernel, blocks, threads, out);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  expected = false;
  return races_seen > 0;
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("races are reported under the thread sanitizer, and corrected kernels never") {
  const bool detects = emulator::detects_races();
  CHECK(races(neighbours<false>, 1, 64) == detects);
  CHECK(!races(neighbours<true>, 3, 64));
  CHECK(races(shuffle_as_fence<false>, 1, 32) == detects);
  CHECK(!races(shuffle_as_fence<true>, 3, 32));
  CHECK(races(count_blocks<false>, 2, 32) == detects);
  CHECK(!races(count_blocks<true>, 3, 32));
}

#define TEXT_OF(...) #__VA_ARGS__
#define EXPANDED(name) std::string(TEXT_OF(name))

TEST_CASE("a bare __shared__ or __constant__ does not compile") {
  CHECK(EXPANDED(__shared__).find("static_assert(false") == 0);
  CHECK(EXPANDED(__constant__).find("static_assert(false") == 0);
  CHECK(EXPANDED(__device__).empty());
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
