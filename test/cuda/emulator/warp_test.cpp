// What barriers, warp primitives, atomics and intrinsics compute, and that orders really differ.
#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

constexpr unsigned full = 0xffffffff;

__global__ void shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int* at = out + lane * 8;
  at[0] = __shfl_sync(full, lane, 5);
  at[1] = __shfl_sync(full, lane, 5, 8);
  at[2] = __shfl_xor_sync(full, lane, 3);
  at[3] = __shfl_xor_sync(full, lane, 16, 16);
  at[4] = __shfl_down_sync(full, lane, 3u);
  at[5] = __shfl_down_sync(full, lane, 3u, 8);
  at[6] = __shfl_up_sync(full, lane, 3u);
  at[7] = __shfl_up_sync(full, lane, 3u, 8);
}

__global__ void wide_shuffle(double* out) {
  const double value = threadIdx.x + 0.25;
  out[threadIdx.x] = __shfl_xor_sync(full, value, 31);
}

// Two halves of a warp go their own ways and meet again.
__global__ void halves(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = lane;
  if (lane < 16) {
    for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffu, value, offset);
  } else {
    value = __shfl_sync(0xffff0000u, value, 31);
  }
  __syncwarp();
  out[lane] = __shfl_xor_sync(full, value, 16);
}

__global__ void votes(unsigned* out) {
  const unsigned lane = threadIdx.x % 32;
  if (lane < 20) {
    const unsigned mask = 0xfffff;
    const unsigned ballot = __ballot_sync(mask, lane % 3 == 0);
    const int any = __any_sync(mask, lane == 19), none = __any_sync(mask, 0);
    const int all = __all_sync(mask, lane < 20), most = __all_sync(mask, lane < 19);
    if (threadIdx.x == 7) {
      out[0] = ballot;
      out[1] = static_cast<unsigned>(any * 8 + none * 4 + all * 2 + most);
      out[2] = __activemask() >> 7 & 1;
    }
  }
  const int count = __syncthreads_count(threadIdx.x % 4 == 0);
  const int either = __syncthreads_or(threadIdx.x == 40), neither = __syncthreads_or(0);
  const int both = __syncthreads_and(1), not_all = __syncthreads_and(threadIdx.x != 3);
  if (threadIdx.x == 63) {
    out[3] = static_cast<unsigned>(count);
    out[4] = static_cast<unsigned>(either * 8 + neither * 4 + both * 2 + not_all);
  }
}

__global__ void histogram(const int* in, int* out, int count) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (static_cast<int>(i) >= count) return;
  atomicAdd(&out[in[i] % 8], 1);
  atomicMax(&out[8], in[i]);
  atomicMin(&out[9], in[i]);
}

// Lost updates: a thread may go on between another's read and write.
__global__ void tickets(int* next, int* out) { out[atomicAdd(next, 1)] = static_cast<int>(threadIdx.x); }

__global__ void exchanges(unsigned* out) {
  const unsigned old = atomicCAS(out, 7u, 9u);
  const unsigned kept = atomicCAS(out, 7u, 11u);
  out[1] = old;
  out[2] = kept;
  out[3] = atomicExch(out, 1u);
}

// The last block to arrive adds what each block left, in a fixed order.
__global__ void sum_in_blocks(const int* in, int* partial, unsigned* arrived, int* out) {
  SHARED_ARRAY(bool, last, 1);
  const int value = in[blockIdx.x * blockDim.x + threadIdx.x];
  const int sum = __syncthreads_count(value % 2);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last[0] = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last[0] || threadIdx.x != 0) return;
  *out = 0;
  for (unsigned i = 0; i < gridDim.x; i++) *out += static_cast<volatile int*>(partial)[i];
}

__global__ void indices(unsigned* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  atomicAdd(&out[block * blockDim.x * blockDim.y * blockDim.z + thread], 1u);
}

__global__ void intrinsics(int* out) {
  out[0] = __dp4a(0x7f80ff01, 0x02030405, 100);
  out[1] = __popc(0xf0f0u) + __clz(1) + __ffs(8) + __ffs(0);
  out[2] = __float_as_int(__int_as_float(0x7fc01234));
  out[3] = static_cast<int>(__float_as_uint(rsqrtf(0.25f)) == std::bit_cast<unsigned>(2.0f));
  out[4] = static_cast<int>(__saturatef(-1.0f) + __saturatef(2.0f) + (__saturatef(NAN) == 0 ? 4 : 0));
  out[5] = max(3, -4) + min(3, -4);
  out[6] = static_cast<int>(fminf(1.5f, NAN) * 2 + fmaxf(0.5f, NAN) * 2);
  out[7] = static_cast<int>(__byte_perm(0x33221100u, 0x77665544u, 0x78d2u));  // of a nibble three bits count
  out[8] = static_cast<int>(rintf(2.5f) + exp2f(3.0f) + tanhf(0.0f) + logf(1.0f) + expf(0.0f));
}

// The order in which the threads of a block, and its blocks, begin: a race on purpose.
__attribute__((no_sanitize("thread"))) __global__ void begin_order(int* next, int* out) {
  const int place = *next;
  *next = place + 1;
  out[place] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

std::vector<int> order_of_run(Order order, uint64_t seed) {
  emulator::configure(quiet(seed, order));
  int* next = upload(std::vector<int>{0});
  int* out = upload(std::vector<int>(256, -1));
  launch(begin_order, 2, 128, next, out);
  return download(out, 256);
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("shuffles move values as on a device") {
  for_all_orders(
      [] {
        int* out = allocate<int>(32 * 8);
        launch(shuffles, 1, 32, out);
        const std::vector<int> result = download(out, 32 * 8);
        REQUIRE(result.size() == 256);
        for (int lane = 0; lane < 32; lane++) {
          const int group = lane / 8 * 8;
          const std::vector<int> expected = {5,
                                             group + 5,
                                             lane ^ 3,
                                             lane >= 16 ? lane ^ 16 : lane,
                                             lane + 3 < 32 ? lane + 3 : lane,
                                             lane + 3 < group + 8 ? lane + 3 : lane,
                                             lane < 3 ? lane : lane - 3,
                                             lane - 3 < group ? lane : lane - 3};
          REQUIRE(std::vector<int>(result.begin() + lane * 8, result.begin() + lane * 8 + 8) == expected);
        }
        auto* wide = allocate<double>(32);
        launch(wide_shuffle, 1, 32, wide);
        REQUIRE(download(wide, 32)[4] == 27.25);
        launch(halves, 1, 32, out);
        const std::vector<int> met = download(out, 32);
        REQUIRE_MESSAGE(!met.empty(), emulator::report());
        REQUIRE(met[3] == 31);
        REQUIRE(met[20] == 120);
      },
      50);
}

TEST_CASE("votes count the lanes of the mask and the threads of the block") {
  for_all_orders(
      [] {
        auto* out = allocate<unsigned>(5);
        launch(votes, 1, 64, out);
        const std::vector<unsigned> result = download(out, 5);
        REQUIRE(result == std::vector<unsigned>{0x49249, 10, 1, 16, 10});
      },
      50);
}

TEST_CASE("atomics lose no update in any order of threads and blocks") {
  std::vector<int> values(1000);
  for (int i = 0; i < 1000; i++) values[static_cast<size_t>(i)] = (i * 37 + 5) % 1000;
  for_all_orders(
      [&values] {
        int* in = upload(values);
        int* out = upload(std::vector<int>{0, 0, 0, 0, 0, 0, 0, 0, 500, 500});
        launch(histogram, 8, 128, static_cast<const int*>(in), out, 1000);
        REQUIRE(download(out, 10) == std::vector<int>{125, 125, 125, 125, 125, 125, 125, 125, 999, 0});
        int* next = upload(std::vector<int>{0});
        int* taken = allocate<int>(64);
        launch(tickets, 1, 64, next, taken);
        const std::vector<int> all = download(taken, 64);
        REQUIRE(std::set<int>(all.begin(), all.end()).size() == 64);
      },
      20);
  emulator::configure(quiet());
  auto* out = upload(std::vector<unsigned>{7, 0, 0, 0});
  launch(exchanges, 1, 1, out);
  CHECK(download(out, 4) == std::vector<unsigned>{1, 7, 9, 9});
}

TEST_CASE("the last block to arrive sees what all blocks left, again and again") {
  std::vector<int> values(7 * 64);
  for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<int>(i * i % 3);
  const auto odd = std::count(values.begin(), values.end(), 1);
  for_all_orders(
      [&] {
        const int* in = upload(values);
        int *partial = allocate<int>(7), *out = allocate<int>(1);
        unsigned* arrived = upload(std::vector<unsigned>{0});
        for (int i = 0; i < 3; i++) {
          launch(sum_in_blocks, 7, 64, in, partial, arrived, out);
          REQUIRE(download(out, 1) == std::vector<int>{static_cast<int>(odd)});
        }
      },
      20);
}

TEST_CASE("every thread of every block runs once, with its own indices") {
  for_all_orders(
      [] {
        const dim3 grid(3, 2, 2), block(5, 4, 3);
        auto* out = upload(std::vector<unsigned>(720, 0));
        launch(indices, grid, block, out);
        REQUIRE(download(out, 720) == std::vector<unsigned>(720, 1));
      },
      20);
}

TEST_CASE("intrinsics compute what the device computes") {
  emulator::configure(quiet());
  auto* out = allocate<int>(9);
  launch(intrinsics, 1, 1, out);
  // 0x7f*2 - 128*3 - 1*4 + 1*5 + 100
  CHECK(download(out, 9) ==
        std::vector<int>{254 - 384 - 4 + 5 + 100, 8 + 31 + 4, 0x7fc01234, 1, 5, -1, 4, 0x77005522, 11});
}

TEST_CASE("threads and blocks begin in the order asked for") {
  std::vector<int> up(256), down(256);
  for (int i = 0; i < 256; i++) up[static_cast<size_t>(i)] = down[static_cast<size_t>(255 - i)] = i;
  CHECK(order_of_run(Order::ascending, 1) == up);
  CHECK(order_of_run(Order::descending, 1) == down);
  const std::vector<int> by_warp = order_of_run(Order::by_warp, 1);
  CHECK(by_warp[0] == 128 + 96);
  CHECK(by_warp[31] == 128 + 127);
  CHECK(by_warp[32] == 128 + 64);
  CHECK(by_warp[255] == 31);
  std::set<std::vector<int>> seen;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    const std::vector<int> random = order_of_run(Order::random, seed);
    CHECK(random == order_of_run(Order::random, seed));
    CHECK(std::set<int>(random.begin(), random.end()).size() == 256);
    seen.insert(random);
  }
  CHECK(seen.size() == 20);
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
