// Weights as they are stored, 16 bytes at a time, and the floats that they stand for: the same bits on every
// device, since all of it is exact.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/dtype.h"
#include "ops/layout.h"
#include "ops/quantize.h"

namespace rwkv::cuda {

/// Weights in 16 bytes.
template <DType type>
constexpr int chunk_weights = 128 / static_cast<int>(bits_of(type));

template <DType type>
constexpr bool has_scales = is_quantized(type);

/// Chunks of weights that share a word with two scales.
template <DType type>
constexpr int scale_word_chunks = 2 * static_cast<int>(scale_group) / chunk_weights<type>;

/// A row of a block in cuda_blocks: bytes of its weights, padded, and of their scales.
struct BlockRow {
  int64_t weights, scales;
};
inline BlockRow block_row(const MatrixLayout& m) {
  const int64_t bytes = m.unit_bytes() / block_outputs;
  const int64_t scales = is_quantized(m.dtype) ? bytes / (bytes_of(m.dtype, scale_group) + 2) * 2 : 0;
  return {bytes - scales, scales};
}

/// Bytes of the scales that a row of input_rows begins with.
inline int64_t row_scale_bytes(const MatrixLayout& m) {
  return is_quantized(m.dtype) ? m.unit_bytes() - (bytes_of(m.dtype, m.outputs) + 63) / 64 * 64 : 0;
}

/// Widened weights are in this unit: int4 in one so small that a sum of a group's products with finite inputs
/// does not overflow, since a group of zeros has a scale of zero and other integers.
template <DType type>
constexpr float weight_unit = type == DType::i4 ? 0x1p-12f : 1.0f;

/// A bf16 number in the lower or upper half of a word.
__device__ inline float low_bf16(unsigned word) { return __uint_as_float(word << 16); }
__device__ inline float high_bf16(unsigned word) { return __uint_as_float(word & 0xffff0000u); }

__device__ inline float half_bits_to_float(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits & 0xffffu)));
}

/// Four bytes, the first in the lowest, less 128, in a unit that is a power of two. A byte b that is put into
/// the mantissa of 2^23 units makes 2^23 + b of them, and the subtraction is exact: that is quicker than a
/// conversion.
template <DType type>
__device__ inline void widen_bytes(unsigned bytes, float* out) {
  constexpr float unit = weight_unit<type>, offset = (0x1p23f + 128) * unit;
  constexpr unsigned magic = type == DType::i4 ? 0x45000000 : 0x4b000000;  // 2^23 units
#pragma unroll
  for (unsigned i = 0; i < 4; i++) out[i] = __uint_as_float(__byte_perm(bytes, magic, 0x7440 + i)) - offset;
}

/// Four neighbours of int4_levels, plus 128, as bytes.
consteval unsigned four_levels(size_t first) {
  unsigned word = 0;
  for (size_t i = 0; i < 4; i++) word |= static_cast<unsigned>(int4_levels[first + i] + 128) << 8 * i;
  return word;
}

/// Eight int4. Neighbours' codes select bytes as they are: of a half of the levels by their lower three bits,
/// which half by the fourth. For eight, 7 instructions make selectors, 6 look up, 16 make floats.
__device__ inline void widen_int4(unsigned word, float* out) {
  constexpr unsigned levels[4] = {four_levels(0), four_levels(4), four_levels(8), four_levels(12)};
  const unsigned halves = (word >> 1 & 0x44444444) | 0x32103210;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const unsigned low = __byte_perm(levels[0], levels[1], word >> 16 * i);
    const unsigned high = __byte_perm(levels[2], levels[3], word >> 16 * i);
    widen_bytes<DType::i4>(__byte_perm(low, high, halves >> 16 * i), out + 4 * i);
  }
}

/// The weights of a word, in weight_unit.
template <DType type>
__device__ inline void widen_word(unsigned word, float* out) {
  if constexpr (type == DType::f32) {
    out[0] = __uint_as_float(word);
  } else if constexpr (type == DType::f16) {
    out[0] = half_bits_to_float(word);
    out[1] = half_bits_to_float(word >> 16);
  } else if constexpr (type == DType::bf16) {
    out[0] = low_bf16(word);
    out[1] = high_bf16(word);
  } else if constexpr (type == DType::i8) {
    widen_bytes<type>(word ^ 0x80808080, out);  // adds 128 to each
  } else {
    widen_int4(word, out);
  }
}

template <DType type>
__device__ inline void widen(uint4 chunk, float (&out)[chunk_weights<type>]) {
  constexpr int of_word = chunk_weights<type> / 4;
  const unsigned words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 4; i++) widen_word<type>(words[i], out + of_word * i);
}

}  // namespace rwkv::cuda
