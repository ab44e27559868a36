// The way in which products use the instructions of tensor cores, with each instruction's twin: operands and
// sums lie where the instructions have them. The numbers are small integers, so that sums are exact.
#include "cuda/intrinsics.h"

#include <doctest/doctest.h>

#include <vector>

#include "core/half.h"
#include "cuda/launch.h"
#include "cuda/memory.h"
#include "cuda/shared.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/device_tensor.h"

namespace rwkv::test {
namespace {

using cuda::chunk_place;
using cuda::step_chunks;

constexpr int inputs = 32;

/// weights, x: tiles as they lie in shared memory, without the exchange of chunks. out: the sums of each lane
/// by the instructions, then by the twin that kernels use.
template <DType type, bool across, int outputs, int tokens, int m, int n>
__global__ void step_kernel(const uint4* weights, const uint4* x, int first_output, int first_token,
                            float* out) {
  constexpr int weight_chunks = across ? outputs / 8 : step_chunks;
  SHARED_ARRAY(uint4, weight_tile, outputs * step_chunks);
  SHARED_ARRAY(uint4, x_tile, tokens * step_chunks);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < outputs * step_chunks; i += 32)
    weight_tile[chunk_place<weight_chunks>(i / weight_chunks, i % weight_chunks)] = weights[i];
  for (int i = lane; i < tokens * step_chunks; i += 32)
    x_tile[chunk_place<step_chunks>(i / step_chunks, i % step_chunks)] = x[i];
  __syncwarp();
  float sums[2][m][n][4] = {};
  cuda::multiply_on_tensor_cores<type, across, weight_chunks>(sums[0], weight_tile, first_output, x_tile,
                                                              first_token, tokens);
  cuda::multiply_step<type, across, weight_chunks>(sums[1], weight_tile, first_output, outputs, x_tile,
                                                   first_token, tokens);
  for (int i = 0; i < 2 * m * n * 4; i++) {
    out[i * 32 + lane] = sums[i / (m * n * 4)][i / (n * 4) % m][i / 4 % n][i % 4];
  }
}

uint16_t bits_of(float value, DType type) {
  return type == DType::f16 ? to_half(value).bits : to_bfloat16(value).bits;
}

std::vector<float> integers(Random& random, int count) {
  std::vector<float> values;
  for (int i = 0; i < count; i++) values.push_back(static_cast<float>(random.index(15)) - 7);
  return values;
}

template <class T>
Buffer upload(const std::vector<T>& values) {
  Buffer buffer = cuda::allocate(0, values.size() * sizeof(T));
  REQUIRE(cudaMemcpy(buffer.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) ==
          cudaSuccess);
  return buffer;
}

template <DType type, bool across, int outputs, int tokens, int m, int n>
void check_step(int first_output, int first_token) {
  CAPTURE(across);
  CAPTURE(outputs);
  Random random(outputs + m);
  const std::vector<float> w = integers(random, outputs * inputs), x = integers(random, tokens * inputs);
  std::vector<uint16_t> weight_tile, x_tile;
  for (int i = 0; i < outputs * inputs; i++) {
    const int at = across ? i % outputs * inputs + i / outputs : i;
    weight_tile.push_back(bits_of(w[static_cast<size_t>(at)], type));
  }
  for (const float v : x) x_tile.push_back(bits_of(v, type));
  const Buffer on_device[] = {upload(weight_tile), upload(x_tile),
                              upload(std::vector<float>(2 * m * n * 4 * 32))};
  cuda::launch(step_kernel<type, across, outputs, tokens, m, n>, 1, 32, 0, nullptr,
               reinterpret_cast<const uint4*>(on_device[0].data()),
               reinterpret_cast<const uint4*>(on_device[1].data()), first_output, first_token,
               reinterpret_cast<float*>(on_device[2].data()));
  std::vector<float> sums(2 * m * n * 4 * 32), expected;
  REQUIRE(cudaMemcpy(sums.data(), on_device[2].data(), sums.size() * sizeof(float), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
  for (int i = 0; i < 2 * m * n * 4 * 32; i++) {
    const int lane = i % 32, part = i / 32 % 4;
    const int output = first_output + i / (32 * 4 * n) % m * 16 + lane / 4 + part / 2 * 8;
    const int token = first_token + i / (32 * 4) % n * 8 + lane % 4 * 2 + part % 2;
    float sum = 0;
    for (int k = 0; k < inputs; k++)
      sum += w[static_cast<size_t>(output) * inputs + k] * x[static_cast<size_t>(token) * inputs + k];
    expected.push_back(sum);
  }
  CHECK(sums == expected);
}

template <DType type, bool across>
void check_steps() {
  check_step<type, across, 128, 128, 4, 4>(64, 32);
  check_step<type, across, 64, 64, 2, 4>(32, 32);
  check_step<type, across, 16, 16, 1, 2>(0, 0);
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("tensor cores: instructions and their twin give the same sums") {
  on_device(4, [] {
    check_steps<DType::f16, false>();
    check_steps<DType::f16, true>();
    check_steps<DType::bf16, false>();
    check_steps<DType::bf16, true>();
  });
}

}  // namespace rwkv::test
