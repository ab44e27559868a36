// The kernel of products of chunks, for one type of weights, one layout and one shape of tile.
//
// A tile goes through the inputs in steps of 64 bytes of a row (fp16, bf16: 32 inputs, fp32: 16; integers
// are widened to fp16 when they are put into shared memory, so 32). Three steps are in shared memory: one is
// multiplied while the next two are on their way. Warps that work on the same segments of the inputs are a
// group: a narrow tile has a group of one warp for each segment, which needs no other warp until the end,
// where the groups' sums are added; larger tiles have one group, which goes from segment to segment.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/intrinsics.h"
#include "cuda/kernels/matmul_copies.h"
#include "cuda/launch.h"
#include "cuda/shared.h"

namespace rwkv::cuda {

/// A warp's sums of its part of a tile.
template <class Shape>
struct Sums {
  static constexpr int m = Shape::warp_outputs / 16, n = Shape::warp_tokens / 8;
  float v[m][n][4];

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < m * n * 4; i++) v[i / (n * 4)][i / 4 % n][i % 4] = 0;
  }
  __device__ void add(const Sums& other) {
#pragma unroll
    for (int i = 0; i < m * n * 4; i++)
      v[i / (n * 4)][i / 4 % n][i % 4] += other.v[i / (n * 4)][i / 4 % n][i % 4];
  }
};

__device__ inline int next_of(int stage) { return stage + 1 == tile_stages ? 0 : stage + 1; }

/// The steps of some inputs, segment by segment, each with all parts of x.
struct Steps {
  int end, segment_steps, parts, segment_end;
  int step = 0, part = 0, segment = 0;

  __device__ Steps(int steps, int segment_steps, int parts)
      : end(steps), segment_steps(segment_steps), parts(parts), segment_end(min(segment_steps, steps)) {}
  __device__ void next() {
    if (++step < segment_end) return;
    if (++part == parts) {
      part = 0;
      segment = segment_end;
      segment_end = min(segment + segment_steps, end);
    }
    step = segment;
  }
};

/// The sums of this warp over its group's segments. `shared` is the group's.
template <DType type, bool across, class Shape>
__device__ inline void sum_up(const ChunkProduct& p, const Place& place, uint4* shared, Sums<Shape>& total) {
  constexpr DType operand = multiplied<type>;
  constexpr int weight_chunks = across ? Shape::outputs / chunk_weights<operand> : step_chunks;
  const int segment = segment_inputs(p.inputs), begin = place.group * segment;
  const int end = Shape::groups == 1 ? p.inputs : min(p.inputs, begin + segment);
  const int steps = (end - begin + step_inputs<operand> - 1) / step_inputs<operand>;
  const int segment_steps = segment / step_inputs<operand>, all_steps = steps * p.parts;
  const int warp = place.thread / 32;
  const int first_output = warp % Shape::output_warps * Shape::warp_outputs;
  const int first_token = warp / Shape::output_warps * Shape::warp_tokens;
  const bool has_work = first_output < place.outputs && first_token < place.tokens;

  WeightCopies<type, across, Shape> weights(p, place, begin);
  const XCopies<operand, Shape> x(p, place, begin);
  AsyncCopies copies;
  Steps ahead(steps, segment_steps, p.parts);
  const auto start = [&](uint4* stage) {
    weights.start(copies, ahead.step, stage);
    x.start(copies, ahead.step, ahead.part > 0, stage + Shape::weight_tile);
    ahead.next();
  };
  for (int i = 0; i < tile_stages - 1; i++) {
    uint4* stage = shared + i * Shape::stage;
    if (i < all_steps) {
      start(stage);
      weights.finish(stage);
    }
    copies.commit();
  }
  Sums<Shape> sums;
  sums.clear();
  int left = segment_steps * p.parts, current = 0, next = tile_stages - 1;
  for (int i = 0; i < all_steps; i++) {
    copies.wait<tile_stages - 2>();
    group_barrier<Shape>();
    const uint4* stage = shared + current * Shape::stage;
    uint4* next_stage = shared + next * Shape::stage;
    const bool more = i + tile_stages - 1 < all_steps;
    if (more) start(next_stage);
    copies.commit();
    if (has_work) {
      multiply_step<operand, across, weight_chunks>(sums.v, stage, first_output, place.outputs,
                                                    stage + Shape::weight_tile, first_token, place.tokens);
    }
    if (more) weights.finish(next_stage);
    current = next_of(current);
    next = next_of(next);
    if (--left == 0 || i + 1 == all_steps) {
      total.add(sums);
      sums.clear();
      left = segment_steps * p.parts;
    }
  }
}

/// A warp's sums of 16 outputs, [tokens][16].
template <int n>
__device__ inline void put(const float (&sums)[n][4], float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < n * 4; i++) {
    const int token = i / 4 * 8 + lane % 4 * 2 + i % 2, output = lane / 4 + i % 4 / 2 * 8;
    to[token * 16 + output] = sums[i / 4][i % 4];
  }
}

/// Each warp stores its own part, 16 outputs after the other: neighbouring lanes have neighbouring outputs.
template <class Shape>
__device__ inline void store_sums(const ChunkProduct& p, const Place& place, const Sums<Shape>& sums,
                                  float* shared) {
  const int warp = place.thread / 32, lane = place.thread % 32;
  const int first_token = warp / Shape::output_warps * Shape::warp_tokens;
  float* own = shared + warp * 16 * Shape::warp_tokens;
#pragma unroll 1
  for (int i = 0; i < Sums<Shape>::m; i++) {
#pragma unroll
    for (int j = 0; j < Sums<Shape>::m; j++) {
      if (i == j) put(sums.v[j], own);
    }
    __syncwarp();
    const int output = warp % Shape::output_warps * Shape::warp_outputs + i * 16 + lane % 16;
#pragma unroll 1
    for (int t = lane / 16; t < Shape::warp_tokens && first_token + t < place.tokens; t += 2) {
      if (output < place.outputs)
        store_sum(p, own[t * 16 + lane % 16], place.first_token + first_token + t,
                  place.first_output + output);
    }
    __syncwarp();
  }
}

/// The groups' sums are added in ascending order. `shared`: that of the first group.
template <class Shape>
__device__ inline void store_sums_of_groups(const ChunkProduct& p, const Place& place, const uint4* shared) {
  const int groups = segments(p.inputs);
  for (int i = static_cast<int>(threadIdx.x); i < 16 * place.tokens; i += static_cast<int>(blockDim.x)) {
    float y = 0;
    for (int g = 0; g < groups; g++) y += reinterpret_cast<const float*>(shared + g * Shape::group_chunks)[i];
    if (i % 16 < place.outputs) store_sum(p, y, place.first_token + i / 16, place.first_output + i % 16);
  }
}

template <DType type, bool across, class Shape>
__global__ void __launch_bounds__(Shape::group_threads* Shape::groups, Shape::blocks)
    multiply_kernel(const ChunkProducts products) {
  DYNAMIC_SHARED_ARRAY(uint4, shared);
  int index = 0;
  while (index + 1 < products.count && blockIdx.x >= products.list[index + 1].first_tile) index++;
  const ChunkProduct& p = products.list[index];
  const Place place = place_of<Shape>(p, products.tokens);
  uint4* own = shared + place.group * Shape::group_chunks;
  Sums<Shape> sums;
  sums.clear();
  sum_up<type, across>(p, place, own, sums);
  group_barrier<Shape>();  // the tiles have been read
  if constexpr (Shape::groups == 1) {
    store_sums(p, place, sums, reinterpret_cast<float*>(shared));
  } else {
    put(sums.v[0], reinterpret_cast<float*>(own));
    __syncthreads();
    store_sums_of_groups<Shape>(p, place, shared);
  }
}

template <DType type, bool across, class Shape>
inline void launch_tiles(const ChunkProducts& products, unsigned tiles, cudaStream_t stream) {
  int groups = 1;
  for (int i = 0; i < products.count && Shape::groups > 1; i++)
    groups = std::max(groups, segments(products.list[i].inputs));
  launch(multiply_kernel<type, across, Shape>, tiles, static_cast<unsigned>(groups * Shape::group_threads),
         static_cast<size_t>(groups * Shape::group_chunks) * sizeof(uint4), stream, products);
}

template <DType type, bool across>
inline void launch_shape(Tile tile, const ChunkProducts& products, unsigned tiles, cudaStream_t stream) {
  switch (tile) {
    case Tile::narrow:
      return launch_tiles<type, across, NarrowTile>(products, tiles, stream);
    case Tile::square:
      return launch_tiles<type, across, SquareTile>(products, tiles, stream);
    case Tile::large:
      return launch_tiles<type, across, LargeTile>(products, tiles, stream);
  }
}

}  // namespace rwkv::cuda
