// Four floats of a row at a time, and sums over a warp.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace rwkv::cuda {

__device__ inline bool aligned16(const float* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

/// Elements i to i + 3 of a row; `beyond` for those that it lacks.
__device__ inline float4 load4(const float* row, int i, int width, float beyond) {
  if (i + 4 <= width && aligned16(row + i)) return *reinterpret_cast<const float4*>(row + i);
  float4 v = make_float4(row[i], beyond, beyond, beyond);
  if (i + 1 < width) v.y = row[i + 1];
  if (i + 2 < width) v.z = row[i + 2];
  if (i + 3 < width) v.w = row[i + 3];
  return v;
}

__device__ inline void store4(float* row, int i, int width, float4 v) {
  if (i + 4 <= width && aligned16(row + i)) {
    *reinterpret_cast<float4*>(row + i) = v;
    return;
  }
  row[i] = v.x;
  if (i + 1 < width) row[i + 1] = v.y;
  if (i + 2 < width) row[i + 2] = v.z;
  if (i + 3 < width) row[i + 3] = v.w;
}

/// The sum over a warp, for every lane.
__device__ inline float warp_sum(float value) {
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  return value;
}

}  // namespace rwkv::cuda
