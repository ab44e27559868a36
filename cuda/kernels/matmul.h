// Products of chunks, as their kernels take them. matmul.cu prepares them, one source for each type of
// weights launches them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/epilogue.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/tile.h"

namespace rwkv::cuda {

/// One product. It has `tiles` tiles, those of its tokens before those of its outputs.
struct ChunkProduct {
  const std::byte* weight;
  const std::byte* x;    ///< the operand: rows of the type that is multiplied, or, for fp32, Product::x
  const int* exponents;  ///< fp16 operands: row t is x[t] * 2^exponents[t]; null where there are no inputs
  int64_t x_row_bytes;
  int64_t x_part_bytes;  ///< from a row's first part to its second one
  int64_t row_bytes;     ///< of a weight row: of an output in cuda_blocks, of an input in input_rows
  int64_t block_bytes;   ///< cuda_blocks: of 16 rows and their scales
  int64_t scale_bytes;   ///< integers: of a row's scales; in input_rows they are the beginning of the row
  int outputs, inputs;
  int parts;      ///< of x: 1, or 2 whose sum it is
  int x_aligned;  ///< not 0: rows of x are, to 16 bytes
  unsigned first_tile;
  EpilogueArguments epilogue;
};

/// The products of one launch, with weights of one type and layout.
struct ChunkProducts {
  ChunkProduct list[max_products];
  int count, tokens;
};

/// Inputs are summed in at most so many segments, one after the other; then the segments' sums are added in
/// ascending order. A segment has a multiple of 64 inputs, which depends on the number of inputs alone, so
/// that a sum has one order in all tiles.
constexpr int max_segments = 8;
__host__ __device__ constexpr int segment_inputs(int inputs) {
  constexpr int unit = 64;
  const int share = (inputs + max_segments - 1) / max_segments;
  return share <= unit ? unit : (share + unit - 1) / unit * unit;
}
__host__ __device__ constexpr int segments(int inputs) {
  return (inputs + segment_inputs(inputs) - 1) / segment_inputs(inputs);
}

/// For exponents from -126 to 127.
__device__ inline float power_of_two(int exponent) {
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}

/// y * 2^-exponent, where 2^-exponent itself may be no float.
__device__ inline float scale_down(float y, int exponent) {
  const int half = exponent / 2;
  return y * power_of_two(-half) * power_of_two(half - exponent);
}

/// Stores the outcome of a sum.
__device__ inline void store_sum(const ChunkProduct& p, float sum, int token, int output) {
  if (p.exponents != nullptr) sum = scale_down(sum, p.exponents[token]);
  store_result(p.epilogue, sum, token, output);
}

/// Queues the kernel. first_tile of each product is set; `tiles` is their number in all.
template <DType type>
void multiply_chunk(Layout layout, Tile tile, const ChunkProducts& products, unsigned tiles,
                    cudaStream_t stream);

}  // namespace rwkv::cuda
