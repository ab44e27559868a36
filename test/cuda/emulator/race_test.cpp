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

// Barriers order the threads of a block, not blocks.
template <bool correct>
__global__ void count_blocks_at_barriers(float* out) {
  __syncthreads();
  __syncwarp();
  if (threadIdx.x == 0 && correct) atomicAdd(out, 1.0f);
  if (threadIdx.x == 0 && !correct) *out += 1;
  __syncwarp();
  __syncthreads();
}

// The last block to arrive adds what the others left. Order between blocks takes a fence on both sides of the
// counter, each behind or before the barrier that gathers the block.
template <bool release, bool acquire>
__global__ void last_block(float* out) {
  float* partial = out + 1;
  auto* arrived = reinterpret_cast<unsigned*>(out + 100);
  SHARED_ARRAY(bool, last, 1);
  partial[blockIdx.x * blockDim.x + threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) {
    if (release) __threadfence();
    last[0] = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    if (acquire) __threadfence();
  }
  __syncthreads();
  if (!last[0] || threadIdx.x != 0) return;
  for (unsigned i = 0; i < gridDim.x * blockDim.x; i++) out[0] += partial[i];
}

// As above, but each thread has its own fences, and loads are volatile.
template <bool correct>
__global__ void last_block_of_threads(float* out) {
  volatile float* partial = out + 1;
  auto* arrived = reinterpret_cast<unsigned*>(out + 100);
  SHARED_ARRAY(bool, last, 1);
  partial[blockIdx.x * blockDim.x + threadIdx.x] = 1;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last[0] = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (!last[0]) return;
  if (correct) __threadfence();
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x * blockDim.x; i++) sum += partial[i];
  if (threadIdx.x == 0) out[0] = sum;
}

template <class Kernel>
bool races(Kernel kernel, unsigned blocks, unsigned threads, uint64_t seed = 1) {
  emulator::configure(quiet(seed));
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
  CHECK(races(count_blocks_at_barriers<false>, 2, 64) == detects);
  CHECK(!races(count_blocks_at_barriers<true>, 3, 64));
}

TEST_CASE("fences and atomics order memory between blocks, and only both together") {
  const bool detects = emulator::detects_races();
  CHECK(races(last_block<false, true>, 3, 16) == detects);
  CHECK(races(last_block<true, false>, 3, 16) == detects);
  CHECK(races(last_block<false, false>, 3, 16) == detects);
  CHECK(races(last_block_of_threads<false>, 3, 16) == detects);
  for (uint64_t seed = 1; seed <= 10; seed++) {
    CHECK(!races(last_block<true, true>, 3, 16, seed));
    CHECK(!races(last_block_of_threads<true>, 3, 16, seed));
  }
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
