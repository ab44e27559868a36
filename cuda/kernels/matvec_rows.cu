// Products of one token with a matrix in input_rows: ffn.value, whose inputs are mostly zero. What belongs to
// a zero is not read, so nothing becomes of what it is, were it no number.
//
// A row of the matrix is cut into tiles of 512 bytes, 16 for each lane of a warp, and the inputs into pieces;
// a block has a tile and a piece, its warps divide the piece. Each warp lists its non-zero inputs in
// ascending order and adds up the rows that belong to them, eight loads in flight for each lane. The warps'
// sums are added through shared memory, the pieces' through the workspace by the last block of a tile to
// arrive, always in the order of the inputs, and the pieces depend only on the shape.
//
// For fp16, a width of 2048 and 8192 inputs with 85% zeros, 5 MB of 34 are read: 1.5 us at the 3.3 TB/s of an
// H100, 5 us at the 1 TB/s of an RTX 4090. On the former latency is the limit: that of the launch, of x, of
// the rows, of the partial sums (0.26 MB, in the level 2 cache), about 5 us. So there are about 256 blocks,
// two for each multiprocessor, and there all rows of a warp (32 inputs, about 5 rows) are on their way at
// once: 20 KB for a block. With larger matrices, and with fewer zeros, memory is the limit.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/kernels/epilogue.h"
#include "cuda/kernels/matvec.h"
#include "cuda/kernels/tail.h"
#include "cuda/kernels/widen.h"
#include "cuda/launch.h"
#include "cuda/shared.h"
#include "ops/layout.h"

namespace rwkv::cuda {
namespace {

constexpr int warps = norm_threads / 32;
constexpr int depth = 8;  // rows on their way at once
static_assert(least_piece == norm_threads);
static_assert(enough_blocks / 2 < max_counters, "tiles in pieces have a counter each, and the tail has one");

/// Outputs of a tile.
template <DType type>
constexpr int tile_width = 32 * chunk_weights<type>;
static_assert(tile_width<DType::f32> * 4 == tile_bytes);
/// Sums of a tile in shared memory: a lane's lie one more apart than they are, so that neighbouring lanes
/// write to different banks.
template <DType type>
constexpr int tile_room = 32 * (chunk_weights<type> + 1);
/// Inputs that a warp looks at before it reads rows: what wide tiles leave room for.
template <DType type>
constexpr int list_size = type == DType::i4 ? 64 : 128;

struct Arguments {
  const std::byte* weights;
  int64_t row_bytes, scale_bytes;  // of an input; a row of integers begins with its scales
  const float* x;
  int inputs, outputs;
  int piece;  // inputs of a block, a multiple of least_piece
  int with_tail;
  float* sums;         // [pieces, tiles * tile width]
  unsigned* counters;  // the tail's, then the tiles'
  EpilogueArguments epilogue;
  TailArguments tail;
};
static_assert(std::has_unique_object_representations_v<Arguments>, "nothing undefined goes to the device");

struct Entry {
  int input;
  float x;
};

/// Lists the inputs of [begin, end), at most `size`, that are not zero; how many they are, for all lanes.
template <int size>
__device__ inline int list_inputs(const float* x, int begin, int end, Entry* list) {
  constexpr int steps = size / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float values[steps];
#pragma unroll
  for (int s = 0; s < steps; s++) {
    const int i = begin + s * 32 + lane;
    values[s] = i < end ? x[i] : 0.0f;
  }
  int count = 0;
#pragma unroll
  for (int s = 0; s < steps; s++) {
    const bool wanted = values[s] != 0.0f;  // NaN is
    const unsigned all = __ballot_sync(0xffffffffu, wanted ? 1 : 0);
    if (wanted) list[count + __popc(all & ((1u << lane) - 1))] = {begin + s * 32 + lane, values[s]};
    count += __popc(all);
  }
  return count;
}

/// Adds the products of up to `depth` listed inputs to the sums of this lane's outputs, those of one chunk of
/// a row. `there`: the row has such a chunk.
template <DType type>
__device__ inline void add_inputs(const Arguments& a, const Entry* list, int count, int chunk, bool there,
                                  float (&sums)[chunk_weights<type>]) {
  constexpr int sharing = scale_word_chunks<type>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint4 weights[depth];
  unsigned scales[depth];
#pragma unroll
  for (int d = 0; d < depth; d++) {
    weights[d] = make_uint4(0, 0, 0, 0);
    scales[d] = 0;
    if (d < count && there) {
      const std::byte* row = a.weights + list[d].input * a.row_bytes;
      weights[d] = __ldcs(reinterpret_cast<const uint4*>(row + a.scale_bytes) + chunk);
      // `sharing` lanes share a word with two scales; the first of them loads it.
      if (has_scales<type> && lane % sharing == 0)
        scales[d] = __ldcs(reinterpret_cast<const unsigned*>(row) + chunk / sharing);
    }
  }
#pragma unroll
  for (int d = 0; d < depth; d++) {
    if (d >= count) break;  // for all lanes
    float x = list[d].x, values[chunk_weights<type>];
    if (has_scales<type>) {
      const unsigned word = __shfl_sync(0xffffffffu, scales[d], lane & ~(sharing - 1));
      x *= (lane & sharing / 2) != 0 ? high_bf16(word) : low_bf16(word);
    }
    widen<type>(weights[d], values);
#pragma unroll
    for (int i = 0; i < chunk_weights<type>; i++) sums[i] = fmaf(x, values[i], sums[i]);
  }
}

/// This warp's sums for the block's tile.
template <DType type>
__device__ inline void add_piece(const Arguments& a, float (&sums)[chunk_weights<type>]) {
  constexpr int size = list_size<type>;
  SHARED_ARRAY(Entry, lists, 2 * warps * size);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int chunk = static_cast<int>(blockIdx.x) * 32 + lane;
  const bool there = chunk * chunk_weights<type> < a.outputs;
  Entry* list = lists + 2 * warp * size;
  const int own = a.piece / warps, begin = static_cast<int>(blockIdx.y) * a.piece + warp * own;
  const int end = min(begin + own, a.inputs);
  for (int at = begin; at < end; at += size) {
    const int count = list_inputs<size>(a.x, at, min(at + size, end), list);
    __syncwarp();
    for (int i = 0; i < count; i += depth) add_inputs<type>(a, list + i, count - i, chunk, there, sums);
    // Lanes may still read this list when the next one is written: in the other place, and the next but one
    // only after all of them have met again.
    list = list == lists + 2 * warp * size ? list + size : list - size;
  }
}

/// The sum of `count` numbers, `stride` apart.
__device__ inline float sum_of(const float* numbers, int64_t stride, int count) {
  float sum = 0;
#pragma unroll 8
  for (int i = 0; i < count; i++) sum += numbers[i * stride];
  return sum;
}

template <DType type>
__global__ void __launch_bounds__(norm_threads, type == DType::i4   ? 2
                                                : type == DType::i8 ? 3
                                                                    : 4)
    matvec_rows_kernel(const Arguments a) {
  constexpr int width = tile_width<type>, chunk = chunk_weights<type>;
  SHARED_ARRAY(float, parts, warps* tile_room<type>);
  if (a.with_tail != 0 && blockIdx.x == 0 && blockIdx.y == 0) prefetch_tail(a.tail);
  float sums[chunk_weights<type>] = {};
  add_piece<type>(a, sums);
#pragma unroll
  for (int i = 0; i < chunk; i++)
    parts[static_cast<int>(threadIdx.x) * (chunk + 1) + i] = sums[i] * (1 / weight_unit<type>);
  __syncthreads();
  const int pieces = static_cast<int>(gridDim.y), tile = static_cast<int>(blockIdx.x) * width;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * width;
  const int end = min(width, a.outputs - tile);
  for (int i = static_cast<int>(threadIdx.x); i < end; i += norm_threads) {
    const float sum = sum_of(parts + i + i / chunk, tile_room<type>, warps);
    if (pieces == 1) {
      store_result(a.epilogue, sum, 0, tile + i);
    } else {
      a.sums[blockIdx.y * stride + tile + i] = sum;
    }
  }
  if (pieces > 1) {
    if (!last_to_arrive(a.counters + 1 + blockIdx.x, gridDim.y)) return;
    for (int i = static_cast<int>(threadIdx.x); i < end; i += norm_threads) {
      store_result(a.epilogue, sum_of(a.sums + tile + i, stride, pieces), 0, tile + i);
    }
  }
  if (a.with_tail != 0 && last_to_arrive(a.counters, gridDim.x)) run_tail(a.tail);
}

template <DType type>
void launch_rows(Arguments& a, cudaStream_t stream) {
  const int tiles = std::max((a.outputs + tile_width<type> - 1) / tile_width<type>, a.with_tail);
  if (tiles == 0) return;
  const int least_pieces = std::max((a.inputs + least_piece - 1) / least_piece, 1);
  const int wanted = std::clamp(enough_blocks / tiles, 1, least_pieces);
  a.piece = (least_pieces + wanted - 1) / wanted * least_piece;
  const int pieces = std::max((a.inputs + a.piece - 1) / a.piece, 1);
  launch(matvec_rows_kernel<type>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(pieces)),
         norm_threads, 0, stream, a);
}

}  // namespace

void matvec_rows(const Product& product, const Tail& tail, const Workspace& workspace, cudaStream_t stream) {
  const MatrixLayout m = layout_of(product.weight);
  Arguments a{};
  a.weights = product.weight.data;
  a.row_bytes = m.unit_bytes();
  a.scale_bytes = row_scale_bytes(m);
  a.x = product.x.f32();
  a.inputs = static_cast<int>(m.inputs);
  a.outputs = static_cast<int>(m.outputs);
  a.sums = workspace.sums;
  a.counters = workspace.counters;
  a.epilogue = epilogue_arguments(product);
  a.tail = tail_arguments(tail);
  a.with_tail = a.tail.any() ? 1 : 0;
  switch (m.dtype) {
    case DType::f32:
      return launch_rows<DType::f32>(a, stream);
    case DType::f16:
      return launch_rows<DType::f16>(a, stream);
    case DType::bf16:
      return launch_rows<DType::bf16>(a, stream);
    case DType::i8:
      return launch_rows<DType::i8>(a, stream);
    default:
      return launch_rows<DType::i4>(a, stream);
  }
}

}  // namespace rwkv::cuda
