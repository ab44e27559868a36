// The part of a head's state S[key][value] that a thread has: four value columns of every eighth group of
// four keys, so that eight lanes of a warp share a column and loads coalesce. Sums over keys are shuffles.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernels/vector.h"
#include "ops/ops.h"

namespace rwkv::cuda {

constexpr int key_lanes = 8;  ///< lanes that share a column

// --- Four columns, and four keys of them: s[key] has the columns ---
__device__ inline float4 mul4(float a, float4 x) { return make_float4(a * x.x, a * x.y, a * x.z, a * x.w); }
__device__ inline float4 fma4(float a, float4 x, float4 y) {
  return make_float4(fmaf(a, x.x, y.x), fmaf(a, x.y, y.y), fmaf(a, x.z, y.z), fmaf(a, x.w, y.w));
}
__device__ inline float4 get4(const float* p) { return *reinterpret_cast<const float4*>(p); }

/// s[i] = by[i] * s[i]
__device__ inline void scale_keys(float4 (&s)[4], float4 by) {
  s[0] = mul4(by.x, s[0]);
  s[1] = mul4(by.y, s[1]);
  s[2] = mul4(by.z, s[2]);
  s[3] = mul4(by.w, s[3]);
}
/// s[i] += key[i] * value
__device__ inline void add_outer(float4 (&s)[4], float4 key, float4 value) {
  s[0] = fma4(key.x, value, s[0]);
  s[1] = fma4(key.y, value, s[1]);
  s[2] = fma4(key.z, value, s[2]);
  s[3] = fma4(key.w, value, s[3]);
}
/// sum += sum over i of by[i] * s[i]
__device__ inline void add_keys(float4& sum, float4 by, const float4 (&s)[4]) {
  sum = fma4(by.x, s[0], sum);
  sum = fma4(by.y, s[1], sum);
  sum = fma4(by.z, s[2], sum);
  sum = fma4(by.w, s[3], sum);
}
/// Over the lanes that share the columns.
__device__ inline float4 sum_of_lanes(float4 v) {
#pragma unroll
  for (int bits = 1; bits < key_lanes; bits *= 2) {
    v.x += __shfl_xor_sync(0xffffffffu, v.x, bits);
    v.y += __shfl_xor_sync(0xffffffffu, v.y, bits);
    v.z += __shfl_xor_sync(0xffffffffu, v.z, bits);
    v.w += __shfl_xor_sync(0xffffffffu, v.w, bits);
  }
  return v;
}

/// Where the part of a head's state lies that a thread has: columns `column` to + 3 of keys 32 * g + `key` to
/// + 3, for each group g.
struct StatePlace {
  float* head;
  int size, key, column;

  __device__ StatePlace(float* state, int head_size, int thread)
      : head(state + static_cast<int64_t>(blockIdx.x) * head_size * head_size),
        size(head_size),
        key(thread % key_lanes * 4),
        column(thread / key_lanes * 4) {}

  __device__ void load(int group, float4 (&s)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = group * 32 + key + i;
      s[i] = make_float4(0, 0, 0, 0);
      if (row < size && column < size) s[i] = load4(head + row * size, column, size, 0.0f);
    }
  }
  __device__ void store(int group, const float4 (&s)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = group * 32 + key + i;
      if (row < size && column < size) store4(head + row * size, column, size, s[i]);
    }
  }
};

/// The state of heads of up to 32 * count channels.
template <int count>
struct RegisterState {
  static constexpr int groups = count, padded = 32 * groups;
  static constexpr int columns = padded;   ///< that the block's threads have at once
  static constexpr int unrolled = groups;  ///< steps of loops over groups

  StatePlace place;
  float4 rows[groups][4] = {};

  __device__ explicit RegisterState(const StatePlace& where) : place(where) {}
  __device__ void begin() {
#pragma unroll
    for (int g = 0; g < groups; g++) place.load(g, rows[g]);
  }
  __device__ void end() const {
#pragma unroll
    for (int g = 0; g < groups; g++) place.store(g, rows[g]);
  }
  __device__ void get(int group, float4 (&s)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) s[i] = rows[group][i];
  }
  __device__ void put(int group, const float4 (&s)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) rows[group][i] = s[i];
  }
  template <class Step>
  __device__ void for_columns(Step step) {
    step(*this);
  }
};

/// The state of larger heads stays where it is: no multiprocessor has the registers.
struct MemoryState {
  static constexpr int groups = max_head_size / 32, padded = max_head_size;
  static constexpr int columns = 64;  // few threads, which may have all the registers
  static constexpr int unrolled = 1;

  StatePlace place;

  __device__ explicit MemoryState(const StatePlace& where) : place(where) {}
  __device__ void begin() {}
  __device__ void end() const {}
  __device__ void get(int group, float4 (&s)[4]) const { place.load(group, s); }
  __device__ void put(int group, const float4 (&s)[4]) const { place.store(group, s); }
  template <class Step>
  __device__ void for_columns(Step step) const {
    MemoryState part = *this;
    for (int first = 0; first < place.size; first += columns, part.place.column += columns) step(part);
  }
};

/// Threads that have so many columns, in whole warps.
constexpr int state_threads(int columns) { return ((columns + 3) / 4 * key_lanes + 31) / 32 * 32; }

}  // namespace rwkv::cuda
