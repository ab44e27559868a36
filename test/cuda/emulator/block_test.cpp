// Threads of a block: each mistake is reported or gives wrong numbers, and its corrected twin never does.
#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

constexpr unsigned full = 0xffffffff;

// For what the schedule shall find; what the thread sanitizer finds is in race_test.cpp.
#define RACES_ON_PURPOSE __attribute__((no_sanitize("thread")))

// Each thread reads what the last thread but itself wrote.
template <bool correct>
RACES_ON_PURPOSE __global__ void reverse(const float* in, float* out) {
  SHARED_ARRAY(float, values, 96);
  values[threadIdx.x] = in[threadIdx.x];
  if (correct) __syncthreads();
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

template <bool correct>
RACES_ON_PURPOSE __global__ void rotate_warp(const float* in, float* out) {
  SHARED_ARRAY(float, values, 64);
  values[threadIdx.x] = in[threadIdx.x];
  if (correct) __syncwarp();
  out[threadIdx.x] = values[(threadIdx.x & ~31u) | ((threadIdx.x + 1) & 31)];
}

// The second barrier keeps a value until all have read it.
template <bool correct>
RACES_ON_PURPOSE __global__ void running_sums(const float* in, float* out) {
  SHARED_ARRAY(float, value, 1);
  float sum = 0;
  for (int i = 0; i < 4; i++) {
    if (threadIdx.x == static_cast<unsigned>(i)) value[0] = in[i];
    __syncthreads();
    if (threadIdx.x % 2 == 1) __syncwarp(0xaaaaaaaa);
    sum += value[0];
    if (correct) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

template <bool correct>
__global__ void branch_barriers(float* out) {
  if (correct) {  // NOLINT(bugprone-branch-clone)
    __syncthreads();
  } else if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

template <bool correct>
__global__ void half_barrier(float* out) {
  if (correct || threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 1;
}

template <bool correct>
__global__ void loop_barriers(float* out) {
  const unsigned turns = correct ? 3 : 2 + threadIdx.x / 32;
  for (unsigned i = 0; i < turns; i++) __syncthreads();
  out[threadIdx.x] = 1;
}

template <bool correct>
__global__ void early_exit(float* out, unsigned count) {
  if (!correct && threadIdx.x >= count) return;
  if (threadIdx.x < count) out[threadIdx.x] = 1;
  __syncthreads();
}

template <bool correct>
__global__ void half_shuffle(const float* in, float* out) {
  const float value = in[threadIdx.x];
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(correct ? 0xffffu : full, value, 1);
}

template <bool correct>
__global__ void mask_without_caller(const float* in, float* out) {
  const unsigned mask = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
  out[threadIdx.x] = __shfl_sync(correct ? mask : 0xffffu, in[threadIdx.x], 0, 16);
}

template <bool correct>
__global__ void short_warp(const float* in, float* out) {
  out[threadIdx.x] = __shfl_xor_sync(correct ? 0xffu : full, in[threadIdx.x], 1);
}

template <bool correct>
__global__ void overlapping_masks(const float* in, float* out) {
  const unsigned mask = correct ? full : threadIdx.x < 16 ? full : 0xffff0000u;
  out[threadIdx.x] = __shfl_xor_sync(mask, in[threadIdx.x], 1);
}

template <bool correct>
__global__ void different_primitives(float* out) {
  if (correct || threadIdx.x < 16) {
    __syncwarp();
  } else {
    __ballot_sync(full, 1);
  }
  out[threadIdx.x] = 1;
}

// Lanes of a warp meet at a barrier wherever it stands, but shuffle at one place.
template <bool correct>
__global__ void branch_primitives(const float* in, float* out) {
  float value = in[threadIdx.x];
  if (threadIdx.x % 2 == 0) {  // NOLINT(bugprone-branch-clone)
    __syncwarp();
    if (!correct) value = __shfl_xor_sync(full, value, 1);
  } else {
    __syncwarp();
    if (!correct) value = __shfl_xor_sync(full, value, 1);
  }
  if (correct) value = __shfl_xor_sync(full, value, 1);
  out[threadIdx.x] = value;
}

// A shuffle may read lanes outside the mask; using the value is the mistake.
template <bool correct>
__global__ void outside_mask(const float* in, float* out) {
  float value = __shfl_down_sync(full, in[threadIdx.x], 16);
  if (threadIdx.x < 16) value = __shfl_sync(0xffffu, value, correct ? 3 : 20);
  out[threadIdx.x] = value;
}

// What a run gives: the report of an error, "wrong" numbers, or "" when all is well.
template <class Kernel>
std::string outcome(Kernel kernel, dim3 block, const std::vector<float>& expected) {
  const float* in = upload(ascending(96));
  float* out = upload(std::vector<float>(96, 0));
  kernel(block, in, out);
  const std::vector<float> result = download(out, expected.size());
  if (!emulator::report().empty()) return emulator::report();
  return result == expected ? "" : "wrong";
}

template <class Kernel>
void always(const std::string& what, unsigned threads, const std::vector<float>& expected, Kernel kernel,
            int seeds = 250) {
  for_all_orders(
      [&] {
        const std::string result = outcome(kernel, dim3(threads), expected);
        const emulator::Settings s = emulator::settings();
        INFO("seed ", s.seed, " order ", static_cast<int>(s.order));
        if (what.empty()) REQUIRE(result.empty());
        if (!what.empty()) REQUIRE_MESSAGE(has(result, what), result);
      },
      seeds);
}

// Some order finds the mistake; how many of four orders times the seeds.
template <class Kernel>
int times_wrong(unsigned threads, const std::vector<float>& expected, Kernel kernel, int seeds) {
  int wrong = 0;
  for_all_orders([&] { wrong += outcome(kernel, dim3(threads), expected).empty() ? 0 : 1; }, seeds);
  return wrong;
}

#define WITH_INPUT(kernel) [](dim3 block, const float* in, float* out) { launch(kernel, 1, block, in, out); }
#define WITHOUT_INPUT(kernel) [](dim3 block, const float*, float* out) { launch(kernel, 1, block, out); }

std::vector<float> reversed(size_t count) {
  std::vector<float> values = ascending(count);
  return {values.rbegin(), values.rend()};
}

std::vector<float> mapped(size_t count, size_t (*source)(size_t)) {
  std::vector<float> values;
  for (size_t i = 0; i < count; i++) values.push_back(static_cast<float>(source(i)));
  return values;
}

const std::vector<float> ones64(64, 1);

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("a missing __syncthreads between write and read gives wrong numbers in every order") {
  always("wrong", 96, reversed(96), WITH_INPUT(reverse<false>), 10);
  always("", 96, reversed(96), WITH_INPUT(reverse<true>));
}

TEST_CASE("a missing __syncthreads between read and the next write gives wrong numbers") {
  const std::vector<float> sums(64, 6);
  CHECK(times_wrong(64, sums, WITH_INPUT(running_sums<false>), 10) >= 30);
  always("", 64, sums, WITH_INPUT(running_sums<true>));
}

TEST_CASE("a missing __syncwarp gives wrong numbers in every order") {
  const auto rotated = mapped(64, [](size_t i) { return (i & ~size_t{31}) | ((i + 1) & 31); });
  always("wrong", 64, rotated, WITH_INPUT(rotate_warp<false>), 10);
  always("", 64, rotated, WITH_INPUT(rotate_warp<true>));
}

TEST_CASE("barriers in two branches are reported with both places") {
  always("divergent barrier", 64, ones64, WITHOUT_INPUT(branch_barriers<false>), 10);
  always("block_test.cpp:", 64, ones64, WITHOUT_INPUT(branch_barriers<false>), 1);
  always("branch_barriers<false>", 64, ones64, WITHOUT_INPUT(branch_barriers<false>), 1);
  always("", 64, ones64, WITHOUT_INPUT(branch_barriers<true>));
}

TEST_CASE("a barrier that some threads pass by is reported") {
  always("block_test.cpp:", 64, ones64, WITHOUT_INPUT(half_barrier<false>), 10);
  always("", 64, ones64, WITHOUT_INPUT(half_barrier<true>));
}

TEST_CASE("barriers reached unequally often are reported") {
  always("block_test.cpp:", 64, ones64, WITHOUT_INPUT(loop_barriers<false>), 10);
  always("", 64, ones64, WITHOUT_INPUT(loop_barriers<true>));
}

TEST_CASE("a thread that ends before a barrier is reported") {
  std::vector<float> expected(64, 1);
  std::fill(expected.begin() + 40, expected.end(), 0.0f);
  always(
      "end", 64, expected,
      [](dim3 block, const float*, float* out) { launch(early_exit<false>, 1, block, out, 40u); }, 10);
  always("", 64, expected,
         [](dim3 block, const float*, float* out) { launch(early_exit<true>, 1, block, out, 40u); });
}

TEST_CASE("masks that name absent lanes, lack the caller, or differ are reported") {
  const auto swapped16 = mapped(16, [](size_t i) { return i ^ 1; });
  always("half_shuffle<false>", 32, swapped16, WITH_INPUT(half_shuffle<false>), 10);
  always("", 32, swapped16, WITH_INPUT(half_shuffle<true>));
  always("lacks the calling lane", 32, ascending(32), WITH_INPUT(mask_without_caller<false>), 10);
  always("", 32, mapped(32, [](size_t i) { return i / 16 * 16; }), WITH_INPUT(mask_without_caller<true>));
  always("names lanes that ended or never were", 8, ascending(8), WITH_INPUT(short_warp<false>), 10);
  always("", 8, mapped(8, [](size_t i) { return i ^ 1; }), WITH_INPUT(short_warp<true>));
  const auto swapped = mapped(32, [](size_t i) { return i ^ 1; });
  always("overlapping_masks<false>", 32, swapped, WITH_INPUT(overlapping_masks<false>), 10);
  always("", 32, swapped, WITH_INPUT(overlapping_masks<true>));
}

TEST_CASE("lanes of a mask that meet at different primitives are reported") {
  const std::vector<float> ones(32, 1);
  always("different_primitives<false>", 32, ones, WITHOUT_INPUT(different_primitives<false>), 10);
  always("", 32, ones, WITHOUT_INPUT(different_primitives<true>));
  const auto swapped = mapped(32, [](size_t i) { return i ^ 1; });
  always("branch_primitives<false>", 32, swapped, WITH_INPUT(branch_primitives<false>), 10);
  always("", 32, swapped, WITH_INPUT(branch_primitives<true>));
}

TEST_CASE("a value from outside the mask is poison") {
  auto expected = mapped(32, [](size_t i) { return i < 16 ? size_t{19} : i; });
  always("wrong", 32, expected, WITH_INPUT(outside_mask<false>), 10);
  always("", 32, expected, WITH_INPUT(outside_mask<true>));
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
