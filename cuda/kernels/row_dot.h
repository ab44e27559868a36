// Dot products of the rows of a matrix in cuda_blocks (ops/layout.h) with one vector of fp32.
//
// A row is read by 4 to 32 lanes of a warp, 16 bytes each. Each adds up its own chunks in ascending order,
// then the lanes' sums are added as a tree: an order that depends only on the row's type and length, so that
// a row gives the same bits whichever kernel asks. A warp works on several rows at once, so that each lane
// has eight loads in flight and what it loads of the vector serves all of them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/kernels/vector.h"
#include "cuda/kernels/widen.h"
#include "ops/layout.h"

namespace rwkv::cuda {

/// A matrix in cuda_blocks, as kernels take it.
struct WeightRows {
  const std::byte* data;
  int64_t row_bytes;    ///< of a row's weights, padded
  int64_t block_bytes;  ///< of 16 rows, scales included
  int inputs, outputs;
  int chunks;  ///< of 16 bytes that a row has, without those that are all padding
  int lanes;   ///< of a warp that share a row: 4, 8, 16 or 32
  DType type;
  uint8_t padding[7] = {};  ///< what happens to be there might look like an address, which devices check
};

inline WeightRows weight_rows(const Tensor& weight) {
  const MatrixLayout m = layout_of(weight);
  WeightRows w{};
  w.data = weight.data;
  w.inputs = static_cast<int>(m.inputs);
  w.outputs = static_cast<int>(m.outputs);
  w.type = m.dtype;
  w.block_bytes = m.unit_bytes();
  w.row_bytes = block_row(m).weights;
  w.chunks = static_cast<int>((bytes_of(m.dtype, m.inputs) + 15) / 16);
  w.lanes = 4;
  while (w.lanes < std::min(w.chunks, 32)) w.lanes *= 2;
  return w;
}

/// Elements `first` and on of a vector; zero for those that it lacks. `aligned`: the vector is, to 16 bytes.
template <int count>
__device__ inline void load_inputs(const float* x, int first, int inputs, bool aligned, float* out) {
  if (aligned && first + count <= inputs) {
#pragma unroll
    for (int i = 0; i < count; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(x + first + i);
      out[i] = v.x;
      out[i + 1] = v.y;
      out[i + 2] = v.z;
      out[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < count; i++) out[i] = first + i < inputs ? x[first + i] : 0.0f;
  }
}

/// One chunk of a row. `scales`: the bf16 scales of this and the next chunks, of integers.
template <DType type>
__device__ inline float add_chunk(float sum, uint4 chunk, unsigned scales, bool upper_scale,
                                  const float (&x)[chunk_weights<type>]) {
  float weights[chunk_weights<type>];
  widen<type>(chunk, weights);
  float part = has_scales<type> ? 0.0f : sum;
#pragma unroll
  for (int i = 0; i < chunk_weights<type>; i++) part = fmaf(weights[i], x[i], part);
  if constexpr (!has_scales<type>) return part;
  return fmaf(upper_scale ? high_bf16(scales) : low_bf16(scales), part, sum);
}

/// Adds this lane's part of the dot products of rows `first` to first + rows - 1, which lie in one block of
/// 16, as far as they are in [begin, end), to sums that are zero; `rows` is 1, 2, 4 or 8.
///
/// Neighbouring lanes' inputs for int4 lie 128 bytes apart, all in the same banks. So every other lane takes
/// the second half of its chunks first, and what they read lies 64 or 192 bytes apart.
template <DType type, int rows>
__device__ inline void add_rows(const WeightRows& w, const float* x, int first, int begin, int end,
                                float (&sums)[rows]) {
  constexpr int steps = 8 / rows, sharing = scale_word_chunks<type>;
  constexpr int parts = type == DType::i4 ? 2 : 1, part_weights = chunk_weights<type> / parts;
  const int lane = static_cast<int>(threadIdx.x) % 32, own = lane % w.lanes;
  const bool aligned = aligned16(x), swapped = parts > 1 && lane % 2 != 0;
  const std::byte* block = w.data + first / block_outputs * w.block_bytes;
  const int in_block = first % static_cast<int>(block_outputs);
  const std::byte* weights = block + in_block * w.row_bytes;
  // `sharing` lanes share a word with two scales; the first of them loads it.
  const int64_t scale_bytes = w.row_bytes / (16 * sharing) * 4;
  const std::byte* scales = block + block_outputs * w.row_bytes + in_block * scale_bytes;
  for (int base = 0; base < w.chunks; base += w.lanes * steps) {
    uint4 chunk[steps][rows];
    unsigned scale[steps][rows];
#pragma unroll
    for (int s = 0; s < steps; s++) {
      const int c = base + s * w.lanes + own;
#pragma unroll
      for (int r = 0; r < rows; r++) {
        const bool there = c < w.chunks && first + r >= begin && first + r < end;
        chunk[s][r] = make_uint4(0, 0, 0, 0);
        if (there) chunk[s][r] = __ldcs(reinterpret_cast<const uint4*>(weights + r * w.row_bytes) + c);
        scale[s][r] = 0;
        if (has_scales<type> && there && c % sharing == 0)
          scale[s][r] = __ldcs(reinterpret_cast<const unsigned*>(scales + r * scale_bytes) + c / sharing);
      }
    }
#pragma unroll
    for (int s = 0; s < steps; s++) {
      const int c = base + s * w.lanes + own;
      if (base + s * w.lanes >= w.chunks) break;  // for all lanes
      float in[chunk_weights<type>];
#pragma unroll
      for (int p = 0; p < parts; p++) {
        const int part = swapped ? parts - 1 - p : p;
        load_inputs<part_weights>(x, c * chunk_weights<type> + part * part_weights, w.inputs, aligned,
                                  in + p * part_weights);
      }
#pragma unroll
      for (int r = 0; r < rows; r++) {
        const uint4 v = chunk[s][r];
        if (swapped) chunk[s][r] = make_uint4(v.z, v.w, v.x, v.y);
        if (has_scales<type>) scale[s][r] = __shfl_sync(0xffffffffu, scale[s][r], lane & ~(sharing - 1));
        sums[r] = add_chunk<type>(sums[r], chunk[s][r], scale[s][r], (lane & sharing / 2) != 0, in);
      }
    }
  }
  for (float& sum : sums) sum *= 1 / weight_unit<type>;
}

/// The types of a kernel's matrices: integers take many registers.
enum class Weights { floats, all };

template <Weights weights, int rows>
__device__ inline void add_rows(const WeightRows& w, const float* x, int first, int begin, int end,
                                float (&sums)[rows]) {
  if (w.type == DType::f32) return add_rows<DType::f32, rows>(w, x, first, begin, end, sums);
  if (w.type == DType::f16) return add_rows<DType::f16, rows>(w, x, first, begin, end, sums);
  if (w.type == DType::bf16) return add_rows<DType::bf16, rows>(w, x, first, begin, end, sums);
  if constexpr (weights == Weights::all) {
    if (w.type == DType::i8) return add_rows<DType::i8, rows>(w, x, first, begin, end, sums);
    if (w.type == DType::i4) return add_rows<DType::i4, rows>(w, x, first, begin, end, sums);
  }
}

/// Rows that a block of so many warps takes at once.
template <int rows>
inline int rows_of_block(const WeightRows& w, int warps) {
  return warps * rows * (32 / w.lanes);
}

/// One warp's dot products of the rows from `at` on, a multiple of `rows`, as far as they are in [begin,
/// end): for each, done(row, dot product) is called by one lane.
template <Weights weights, int rows, class Done>
__device__ inline void row_dots_of_warp(const WeightRows& w, const float* x, int at, int begin, int end,
                                        Done done) {
  static_assert(rows == 1 || rows == 2 || rows == 4);
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / w.lanes, own = lane % w.lanes;
  const int first = at + group * rows;
  float sums[rows] = {};
  add_rows<weights, rows>(w, x, first, begin, end, sums);
  float result = 0;
#pragma unroll
  for (int r = 0; r < rows; r++) {
    for (int bits = w.lanes / 2; bits > 0; bits /= 2) sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], bits);
    if (own == r) result = sums[r];
  }
  const int row = first + own;
  if (own < rows && row >= begin && row < end) done(row, result);
}

/// The warps of a one-dimensional block share rows [begin, end): for each, done(row, dot product) is called
/// by one thread. All threads of the block must call; there is no barrier. A warp takes `rows` (1, 2 or 4) at
/// once for each row's lanes: more for many rows, so that the vector is loaded less often, fewer where there
/// are few.
template <int rows, class Done>
__device__ inline void row_dots(const WeightRows& w, const float* x, int begin, int end, Done done) {
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int of_warp = rows * (32 / w.lanes);
  for (int at = begin / rows * rows + warp * of_warp; at < end; at += warps * of_warp)
    row_dots_of_warp<Weights::all, rows>(w, x, at, begin, end, done);
}

}  // namespace rwkv::cuda
