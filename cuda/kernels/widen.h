// Weights as they are stored, 16 bytes at a time, and the floats that they stand for: the same bits on every
// device, since all of it is exact.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/dtype.h"

namespace rwkv::cuda {

/// Weights in 16 bytes.
template <DType type>
constexpr int chunk_weights = 16 / static_cast<int>(size_of(type));

/// A bf16 number in the lower or upper half of a word.
__device__ inline float low_bf16(unsigned word) { return __uint_as_float(word << 16); }
__device__ inline float high_bf16(unsigned word) { return __uint_as_float(word & 0xffff0000u); }

__device__ inline float half_bits_to_float(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits & 0xffffu)));
}

/// Four int8, the first in the lowest byte. A byte b that is put into the mantissa of 2^23 makes 2^23 + b,
/// and the subtraction is exact: that is quicker than a conversion.
__device__ inline void widen_int8(unsigned word, float* out) {
  constexpr unsigned magic = 0x4b000000;       // 2^23
  const unsigned shifted = word ^ 0x80808080;  // adds 128 to each
#pragma unroll
  for (unsigned i = 0; i < 4; i++) {
    out[i] = __uint_as_float(__byte_perm(shifted, magic, 0x7440 + i)) - 8388736.0f;  // 2^23 + 128
  }
}

template <DType type>
__device__ inline void widen(uint4 chunk, float (&out)[chunk_weights<type>]) {
  const unsigned words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (type == DType::f32) {
      out[i] = __uint_as_float(words[i]);
    } else if constexpr (type == DType::f16) {
      out[2 * i] = half_bits_to_float(words[i]);
      out[2 * i + 1] = half_bits_to_float(words[i] >> 16);
    } else if constexpr (type == DType::bf16) {
      out[2 * i] = low_bf16(words[i]);
      out[2 * i + 1] = high_bf16(words[i]);
    } else {
      widen_int8(words[i], out + 4 * i);
    }
  }
}

}  // namespace rwkv::cuda
