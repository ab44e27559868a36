// Tiles of products of chunks: their shapes, and how blocks put them into shared memory (matmul_tile.h).
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/intrinsics.h"
#include "cuda/kernels/matmul.h"
#include "ops/layout.h"

namespace rwkv::cuda {

constexpr int tile_stages = 3;

/// A tile of outputs x tokens, for a group of so many warps in each direction, at most `groups` of them, and
/// so many such blocks at once on a multiprocessor: that bounds the registers.
template <int outputs_, int tokens_, int output_warps_, int token_warps_, int groups_, int blocks_>
struct TileShape {
  static constexpr int outputs = outputs_, tokens = tokens_;
  static constexpr int output_warps = output_warps_, token_warps = token_warps_, groups = groups_;
  static constexpr int blocks = blocks_;
  static constexpr int group_warps = output_warps * token_warps, group_threads = 32 * group_warps;
  static constexpr int warp_outputs = outputs / output_warps, warp_tokens = tokens / token_warps;
  /// Of 16 bytes, in shared memory.
  static constexpr int weight_tile = outputs * step_chunks, x_tile = tokens * step_chunks;
  static constexpr int stage = weight_tile + x_tile;
  static constexpr int group_chunks = tile_stages * stage;
};
using NarrowTile = TileShape<narrow_outputs, narrow_tokens, 1, 1, max_segments, 2>;
using SquareTile = TileShape<square_size, square_size, 2, 2, 1, 3>;
using LargeTile = TileShape<large_size, large_size, 2, 4, 1, 1>;

/// What is multiplied: integers as fp16.
template <DType stored>
constexpr DType multiplied = has_scales<stored> ? DType::f16 : stored;

template <DType type>
constexpr int element_bytes = 16 / chunk_weights<type>;

/// A block's tile, and this thread's place.
struct Place {
  int first_output, first_token;  ///< of the tile
  int outputs, tokens;            ///< that it has
  int group, thread;              ///< the thread in its group
};

template <class Shape>
__device__ inline Place place_of(const ChunkProduct& p, int tokens) {
  const int tile = static_cast<int>(blockIdx.x - p.first_tile);
  const int token_tiles = (tokens + Shape::tokens - 1) / Shape::tokens;
  Place place{};
  place.first_output = tile / token_tiles * Shape::outputs;
  place.first_token = tile % token_tiles * Shape::tokens;
  place.outputs = min(Shape::outputs, p.outputs - place.first_output);
  place.tokens = min(Shape::tokens, tokens - place.first_token);
  place.group = static_cast<int>(threadIdx.x) / Shape::group_threads;
  place.thread = static_cast<int>(threadIdx.x) % Shape::group_threads;
  return place;
}

template <class Shape>
__device__ inline void group_barrier() {
  if constexpr (Shape::group_warps == 1) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

/// A thread's share of the tiles of x.
template <DType type, class Shape>
struct XCopies {
  static constexpr int count = Shape::x_tile / Shape::group_threads;
  const std::byte* from;  ///< of the first chunk, at the segment's first step
  int64_t apart, part;    ///< from chunk to chunk; from part to part
  int row, chunk, rows, first_input, inputs;
  bool aligned;

  __device__ XCopies(const ChunkProduct& p, const Place& place, int first)
      : apart(p.x_row_bytes * (Shape::group_threads / step_chunks)),
        part(p.x_part_bytes),
        row(place.thread / step_chunks),
        chunk(place.thread % step_chunks),
        rows(place.tokens),
        first_input(first + chunk * chunk_weights<type>),
        inputs(p.inputs),
        aligned(p.x_aligned != 0) {
    from = p.x + (place.first_token + row) * p.x_row_bytes +
           static_cast<int64_t>(first_input) * element_bytes<type>;
  }

  __device__ void start(AsyncCopies& copies, int step, bool second_part, uint4* tile) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int to_row = row + i * (Shape::group_threads / step_chunks);
      if (to_row >= rows) break;
      const std::byte* source = from + i * apart + step * 64 + (second_part ? part : 0);
      uint4* to = tile + chunk_place<step_chunks>(to_row, chunk);
      if (type != DType::f32 || (aligned && first_input + step * step_inputs<type> + 4 <= inputs)) {
        copies.copy(to, source);
      } else {
        start_by_element(copies, step, reinterpret_cast<const float*>(source),
                         reinterpret_cast<unsigned*>(to));
      }
    }
  }

  __device__ void start_by_element(AsyncCopies& copies, int step, const float* source, unsigned* to) const {
    const int left = inputs - first_input - step * step_inputs<type>;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i < left) {
        copies.copy(to + i, source + i);
      } else {
        to[i] = 0;
      }
    }
  }
};

/// A thread's share of the tiles of weights that are multiplied as they are stored.
template <DType type, bool across, class Shape>
struct WeightCopies {
  static constexpr int row_chunks = across ? Shape::outputs / chunk_weights<type> : step_chunks;
  static constexpr int count = Shape::weight_tile / Shape::group_threads;
  static constexpr int rows_apart = Shape::group_threads / row_chunks;
  const std::byte* from;
  int64_t apart, step_bytes;
  int row, chunk, first_input, inputs, rows;
  bool beyond;  ///< the matrix has no such outputs

  __device__ WeightCopies(const ChunkProduct& p, const Place& place, int first)
      : apart(p.row_bytes * rows_apart),
        row(place.thread / row_chunks),
        chunk(place.thread % row_chunks),
        first_input(first),
        inputs(p.inputs),
        rows(place.outputs) {
    const int64_t at = int64_t{across ? place.first_output : first} * element_bytes<type> + chunk * 16;
    from = p.weight + ((across ? first : place.first_output) + row) * p.row_bytes + at;
    step_bytes = across ? step_inputs<type> * p.row_bytes : 64;
    beyond = at >= p.row_bytes;
  }

  __device__ void start(AsyncCopies& copies, int step, uint4* tile) const {
    if (across && beyond) return;
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int to_row = row + i * rows_apart;
      uint4* to = tile + chunk_place<row_chunks>(to_row, chunk);
      if (across && first_input + step * step_inputs<type> + to_row >= inputs) {
        *to = make_uint4(0, 0, 0, 0);
      } else if (across || to_row < rows) {
        copies.copy(to, from + i * apart + step * step_bytes);
      }
    }
  }
  __device__ void finish(uint4*) const {}
};

/// A thread's share of a step of integers: 16 weights of a row.
constexpr int quantized_share = 16;
template <DType type>
using QuantizedShare = std::conditional_t<type == DType::i4, uint2, uint4>;

__device__ inline void words_of(uint4 share, unsigned (&words)[4]) {
  words[0] = share.x, words[1] = share.y, words[2] = share.z, words[3] = share.w;
}
__device__ inline void words_of(uint2 share, unsigned (&words)[2]) { words[0] = share.x, words[1] = share.y; }

/// 16 integers times their scale, as fp16; zero from number `count` on.
template <DType type>
__device__ inline void widen_to_half(QuantizedShare<type> share, float scale, int count, uint4 (&out)[2]) {
  constexpr int words = sizeof share / 4;
  unsigned from[words], pairs[8];
  words_of(share, from);
  float q[quantized_share];
#pragma unroll
  for (int i = 0; i < words; i++) widen_word<type>(from[i], q + quantized_share / words * i);
  scale *= 1 / weight_unit<type>;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const unsigned low = __half_as_ushort(__float2half_rn(q[2 * i] * scale));
    const unsigned high = __half_as_ushort(__float2half_rn(q[2 * i + 1] * scale));
    pairs[i] = low | high << 16;
  }
  if (count < quantized_share) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (2 * i + 1 >= count) pairs[i] = 2 * i < count ? pairs[i] & 0xffffu : 0;
    }
  }
  out[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  out[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
}

/// The same for integers: a thread's share of a step is loaded when the step is started and put into shared
/// memory when it is finished.
template <DType type, bool across, class Shape>
requires has_scales<type>
struct WeightCopies<type, across, Shape> {
  static constexpr int row_chunks = across ? Shape::outputs / quantized_share : 2;
  static_assert(Shape::group_threads * 2 == Shape::weight_tile);
  const std::byte *from, *scales;
  int64_t step_bytes, scale_step_bytes;
  int row, chunk, first_input, inputs;
  bool beyond;
  QuantizedShare<type> weights;
  float scale;
  int count;  ///< of the weights, those for inputs that there are; int8 behind them are zero

  __device__ WeightCopies(const ChunkProduct& p, const Place& place, int first)
      : row(place.thread / row_chunks),
        chunk(place.thread % row_chunks),
        first_input(first + (across ? row : chunk * quantized_share)),
        inputs(p.inputs) {
    const int output = place.first_output + (across ? chunk * quantized_share : row);
    if constexpr (across) {
      const std::byte* begin = p.weight + int64_t{first_input} * p.row_bytes;
      from = begin + p.scale_bytes + output / per_byte;
      scales = begin + output / scale_group * 2;
      step_bytes = scale_step_bytes = step_inputs<DType::f16> * p.row_bytes;
    } else {
      constexpr auto block = static_cast<int>(block_outputs);
      const std::byte* begin = p.weight + output / block * p.block_bytes;
      from = begin + output % block * p.row_bytes + first_input / per_byte;
      scales = begin + block * p.row_bytes + output % block * p.scale_bytes + first / scale_group * 2;
      step_bytes = step_inputs<DType::f16> / per_byte;
      scale_step_bytes = 2;
    }
    beyond = output >= p.outputs;
  }

  __device__ void start(AsyncCopies&, int step, uint4*) {
    weights = {};
    scale = 0;
    const int left = inputs - first_input - step * step_inputs<DType::f16>;
    count = across || type == DType::i8 ? quantized_share : left;
    if (beyond || left <= 0) return;
    weights = __ldcs(reinterpret_cast<const QuantizedShare<type>*>(from + step * step_bytes));
    scale = low_bf16(__ldcs(reinterpret_cast<const unsigned short*>(scales + step * scale_step_bytes)));
  }

  __device__ void finish(uint4* tile) const {
    uint4 wide[2];
    widen_to_half<type>(weights, scale, count, wide);
#pragma unroll
    for (int i = 0; i < 2; i++) tile[chunk_place<2 * row_chunks>(row, 2 * chunk + i)] = wide[i];
  }

 private:
  static constexpr int per_byte = 8 / static_cast<int>(bits_of(type));
};

}  // namespace rwkv::cuda
