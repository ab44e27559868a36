// Copies that a thread does not wait for: each mistake gives wrong numbers in some order, and its corrected
// twin never does.
#include <cuda_pipeline.h>

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

constexpr unsigned threads = 64;
constexpr int rounds = 6, stages = 3;

enum class Mistake { none, no_wait, waits_for_too_few, no_barrier_before_reading };

// The sum over rounds of what the neighbour copied: `stages` buffers, two groups of copies always under way.
// For what the schedule shall find; the thread sanitizer would find it too.
template <Mistake mistake>
__attribute__((no_sanitize("thread"))) __global__ void sum_neighbours(const float4* in, float* out) {
  SHARED_ARRAY(float4, buffers, stages * threads);
  const unsigned neighbour = (threadIdx.x + 37) % threads;
  const auto start = [&](int round) {
    if (round < rounds) {
      __pipeline_memcpy_async(buffers + round % stages * threads + threadIdx.x,
                              in + round * threads + threadIdx.x, 16);
    }
    __pipeline_commit();
  };
  start(0);
  start(1);
  float sum = 0;
  for (int round = 0; round < rounds; round++) {
    if (mistake == Mistake::waits_for_too_few) __pipeline_wait_prior(2);
    if (mistake != Mistake::no_wait && mistake != Mistake::waits_for_too_few) __pipeline_wait_prior(1);
    if (mistake != Mistake::no_barrier_before_reading) __syncthreads();
    const float4 value = buffers[round % stages * threads + neighbour];
    sum += value.x + value.w;
    start(round + 2);
  }
  out[threadIdx.x] = sum;
}

// With two buffers a barrier must keep the slow from being overtaken.
template <bool correct>
__attribute__((no_sanitize("thread"))) __global__ void reuse_buffer(const float4* in, float* out) {
  SHARED_ARRAY(float4, buffer, threads);
  float sum = 0;
  for (int round = 0; round < rounds; round++) {
    __pipeline_memcpy_async(buffer + threadIdx.x, in + round * threads + threadIdx.x, 16);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    const float4 value = buffer[(threadIdx.x + 37) % threads];
    sum += value.x + value.w;
    if (correct) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

__global__ void copy_bytes(const char* in, float* out, int bytes, int offset) {
  SHARED_ARRAY(float4, buffer, 2);
  __pipeline_memcpy_async(reinterpret_cast<char*>(buffer), in + offset, static_cast<size_t>(bytes));
  __pipeline_commit();
  __pipeline_wait_prior(0);
  out[0] = buffer[0].x;
}

__global__ void copy_to_global(const float* in, float* out) {
  __pipeline_memcpy_async(out, in, 4);
  __pipeline_commit();
}

const std::vector<float>& input() {
  static const std::vector<float> values = ascending(rounds * threads * 4);
  return values;
}

std::vector<float> expected() {
  std::vector<float> sums(threads, 0);
  for (unsigned i = 0; i < threads; i++) {
    for (unsigned round = 0; round < rounds; round++) {
      const size_t at = (round * threads + (i + 37) % threads) * 4;
      sums[i] += input()[at] + input()[at + 3];
    }
  }
  return sums;
}

template <class Kernel>
int times_wrong(Kernel kernel, int seeds) {
  int wrong = 0;
  for_all_orders(
      [&] {
        const auto* in = reinterpret_cast<const float4*>(upload(input()));
        auto* out = allocate<float>(threads);
        launch(kernel, 2, threads, in, out);
        wrong += download(out, threads) == expected() && emulator::report().empty() ? 0 : 1;
      },
      seeds);
  return wrong;
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("a missing or short wait for copies, and missing barriers around them, give wrong numbers") {
  CHECK(times_wrong(sum_neighbours<Mistake::no_wait>, 10) >= 30);  // all but in descending order
  CHECK(times_wrong(sum_neighbours<Mistake::waits_for_too_few>, 10) >= 30);
  CHECK(times_wrong(sum_neighbours<Mistake::no_barrier_before_reading>, 10) == 40);
  CHECK(times_wrong(reuse_buffer<false>, 10) >= 10);
  CHECK(times_wrong(sum_neighbours<Mistake::none>, 250) == 0);
  CHECK(times_wrong(reuse_buffer<true>, 250) == 0);
}

TEST_CASE("copies of other sizes, misaligned ones and those not to shared memory are reported") {
  for (const int bytes : {4, 8, 16, 12, 1, 0}) {
    for (const int offset : {0, 4, 8, 16}) {
      emulator::configure(quiet());
      launch(copy_bytes, 1, 1, reinterpret_cast<const char*>(upload(input())), allocate<float>(1), bytes,
             offset);
      const bool size = bytes == 4 || bytes == 8 || bytes == 16, aligned = size && offset % bytes == 0;
      CHECK(cudaDeviceSynchronize() == (aligned ? cudaSuccess
                                        : size  ? cudaErrorMisalignedAddress
                                                : cudaErrorLaunchFailure));
      if (aligned) CHECK(emulator::counters().kernel_load_bytes == static_cast<uint64_t>(bytes));
    }
  }
  emulator::configure(quiet());
  launch(copy_to_global, 1, 1, static_cast<const float*>(upload(input())), allocate<float>(1));
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK_MESSAGE(has(emulator::report(), "not from global to shared memory"), emulator::report());
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
