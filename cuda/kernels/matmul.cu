// Products of chunks of two tokens or more: inputs are prepared as operands in one launch, then multiplied in
// one launch for each type and layout of weights.
//
// What limits them, for T tokens and a matrix of O outputs by I inputs, W bytes each weight (int8: 17/16,
// int4: 9/16):
//   operations   2 T O I
//   memory       W O I of weights once, 4 T I + 2 T I of inputs and operands, 4 T O of outputs
// An H100 does 990 T operations a second and moves 3.3 TB, a 4090 165 T (with fp32 sums) and 1 TB: up to
// about W * 150 tokens (4090: W * 80) the weights' bytes are the limit, so that 16 tokens cost what 2 do.
// Then narrow tiles serve best: many blocks, each of which reads a few rows of weights at full width. For
// many tokens the tensor cores are the limit, fed from the L2 cache: a tile of o outputs and t tokens does 2
// o t operations for 2 (o + t) bytes, large ones 64 for each byte; at 5.5 TB/s (4090: 5) this is 350 T
// operations a second on an H100 (there a product that shares tiles between blocks would do more), and more
// than a 4090 has. fp32 weights are multiplied without tensor cores: 67 T (4090: 83 T) operations.
#include "cuda/kernels/matmul.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <array>
#include <climits>

#include "core/checked.h"
#include "core/error.h"
#include "cuda/kernels/vector.h"
#include "cuda/kernels/widen.h"
#include "cuda/launch.h"
#include "cuda/shared.h"
#include "ops/layout.h"

namespace rwkv::cuda {
namespace {

constexpr int prepare_threads = 256;

/// The inputs of products, as tensor cores read them.
struct Operand {
  const float* x;
  unsigned short* to;  ///< [tokens][parts][padded]
  int* exponents;      ///< of the rows; null for bf16
  int64_t stride;
  int inputs, padded, parts;
  int unused;  // no padding, whose bytes would be undefined
};
struct Operands {
  Operand list[max_products] = {};
  int64_t count = 0;
};

/// The exponent that brings the largest finite magnitude of a row into [2^14, 2^15); 0 for a row without.
__device__ int row_exponent(const float* x, int inputs) {
  SHARED_ARRAY(unsigned, largest, 1);
  if (threadIdx.x == 0) largest[0] = 0;
  __syncthreads();
  unsigned magnitude = 0;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < inputs; i += static_cast<int>(blockDim.x) * 4) {
    const float4 v = load4(x, i, inputs, 0.0f);
    for (const float f : {v.x, v.y, v.z, v.w}) {
      const unsigned bits = __float_as_uint(f) & 0x7fffffffu;
      if (bits < 0x7f800000u) magnitude = max(magnitude, bits);
    }
  }
  for (int bits = 16; bits > 0; bits /= 2) {
    magnitude = max(magnitude, __shfl_xor_sync(0xffffffffu, magnitude, bits));
  }
  if (threadIdx.x % 32 == 0) atomicMax(largest, magnitude);
  __syncthreads();
  magnitude = largest[0];
  if (magnitude == 0) return 0;
  // The logarithm, rounded down; a subnormal number is its bits * 2^-149.
  const int log = magnitude < 0x00800000u ? 31 - __clz(static_cast<int>(magnitude)) - 149
                                          : static_cast<int>(magnitude >> 23) - 127;
  return 14 - log;
}

__device__ inline unsigned pair_of(unsigned short low, unsigned short high) { return low | high << 16; }

__global__ void __launch_bounds__(prepare_threads) prepare_kernel(const Operands operands) {
  const Operand& o = operands.list[blockIdx.y];
  const int64_t token = blockIdx.x;
  const float* x = o.x + token * o.stride;
  auto* to = reinterpret_cast<uint2*>(o.to + token * o.padded * o.parts);
  const bool half = o.exponents != nullptr;
  const int exponent = half ? row_exponent(x, o.inputs) : 0;
  if (half && threadIdx.x == 0) o.exponents[token] = exponent;
  // In two factors, since 2^exponent may be no float. Where the first product is rounded, both give zero.
  const float first = power_of_two(exponent / 2), second = power_of_two(exponent - exponent / 2);
  for (int i = static_cast<int>(threadIdx.x) * 4; i < o.padded; i += static_cast<int>(blockDim.x) * 4) {
    const float4 v = i < o.inputs ? load4(x, i, o.inputs, 0.0f) : make_float4(0, 0, 0, 0);
    const auto rounded = [&](float f) {
      return half ? __half_as_ushort(__float2half_rn(f * first * second))
                  : __bfloat16_as_ushort(__float2bfloat16_rn(f));
    };
    to[i / 4] = make_uint2(pair_of(rounded(v.x), rounded(v.y)), pair_of(rounded(v.z), rounded(v.w)));
    if (o.parts == 1) continue;
    // What the first part lacks; nothing where it is infinite or no number.
    const auto rest = [&](float f) {
      const float scaled = f * first * second, lost = scaled - __half2float(__float2half_rn(scaled));
      return __half_as_ushort(__float2half_rn(fabsf(lost) < 65504.0f ? lost : 0.0f));
    };
    to[(o.padded + i) / 4] = make_uint2(pair_of(rest(v.x), rest(v.y)), pair_of(rest(v.z), rest(v.w)));
  }
}

int64_t padded_inputs(int64_t inputs) {
  return (inputs + operand_padding - 1) / operand_padding * operand_padding;
}

/// Operands of some products, one after the other in the workspace: rows of 16-bit numbers, then exponents.
class Preparation {
 public:
  Preparation(const Workspace& workspace, int64_t tokens)
      : next_(workspace.operands), end_(next_ + workspace.operand_bytes), tokens_(tokens) {}

  /// The operand of these inputs, which may serve other products too.
  const Operand& operand(const Tensor& x, bool bf16, int parts) {
    const auto inputs = static_cast<int>(x.cols());
    for (int i = 0; i < operands_.count; i++) {
      const Operand& known = operands_.list[i];
      const bool same = known.x == x.f32() && known.stride == x.stride && known.inputs == inputs;
      if (same && known.parts == parts && (known.exponents == nullptr) == bf16) return known;
    }
    Operand& o = operands_.list[operands_.count++];
    o = {x.f32(), nullptr, nullptr, x.stride, inputs, static_cast<int>(padded_inputs(inputs)), parts, 0};
    o.to = take<unsigned short>(int64_t{o.padded} * parts);
    if (!bf16) o.exponents = take<int>(1);
    return o;
  }

  void launch(cudaStream_t stream) const {
    int widest = 0;
    for (int i = 0; i < operands_.count; i++) widest = std::max(widest, operands_.list[i].padded);
    const auto threads = static_cast<unsigned>(std::clamp(widest / 4 / 32 * 32, 32, prepare_threads));
    const dim3 grid(static_cast<unsigned>(tokens_), static_cast<unsigned>(operands_.count));
    cuda::launch(prepare_kernel, grid, threads, 0, stream, operands_);
  }

 private:
  /// `count` for each token, aligned to 16 bytes.
  template <class T>
  T* take(int64_t count) {
    const int64_t bytes = round_up(tokens_ * count * static_cast<int64_t>(sizeof(T)), 16);
    if (bytes > end_ - next_) throw Error("matmul: the inputs exceed what was reserved");
    next_ += bytes;
    return reinterpret_cast<T*>(next_ - bytes);
  }

  std::byte *next_, *end_;
  int64_t tokens_;
  Operands operands_{};
};

ChunkProduct chunk_product(const Product& p, const Workspace& workspace, Preparation& preparation) {
  const MatrixLayout m = layout_of(p.weight);
  ChunkProduct c{};
  c.weight = p.weight.data;
  c.outputs = static_cast<int>(m.outputs);
  c.inputs = static_cast<int>(m.inputs);
  c.parts = 1;
  c.epilogue = epilogue_arguments(p);
  const bool rows = m.layout == Layout::input_rows;
  c.block_bytes = m.unit_bytes();
  c.row_bytes = rows ? c.block_bytes : block_row(m).weights;
  c.scale_bytes = rows ? row_scale_bytes(m) : block_row(m).scales;
  if (m.dtype == DType::f32) {
    c.x = p.x.data;
    c.x_row_bytes = p.x.stride * 4;
    c.x_aligned = reinterpret_cast<uintptr_t>(c.x) % 16 == 0 && c.x_row_bytes % 16 == 0 ? 1 : 0;
  } else if (c.inputs > 0) {
    const bool bf16 = m.dtype == DType::bf16, small = m.outputs * m.inputs <= workspace.two_part_weights;
    c.parts = small && !bf16 ? 2 : 1;
    const Operand& o = preparation.operand(p.x, bf16, c.parts);
    c.x = reinterpret_cast<const std::byte*>(o.to);
    c.exponents = o.exponents;
    c.x_part_bytes = int64_t{2} * o.padded;
    c.x_row_bytes = c.x_part_bytes * c.parts;
    c.x_aligned = 1;
  }
  return c;
}

int64_t tiles_of(int outputs, int tokens, int tile_outputs, int tile_tokens) {
  const auto parts = [](int64_t size, int64_t part) { return (size + part - 1) / part; };
  return parts(outputs, tile_outputs) * parts(tokens, tile_tokens);
}

unsigned number_tiles(ChunkProducts& products, Tile tile) {
  const int size = tile == Tile::large ? large_size : square_size;
  const bool narrow = tile == Tile::narrow;
  int64_t tiles = 0;
  for (int i = 0; i < products.count; i++) {
    ChunkProduct& p = products.list[i];
    p.first_tile = static_cast<unsigned>(tiles);
    tiles +=
        tiles_of(p.outputs, products.tokens, narrow ? narrow_outputs : size, narrow ? narrow_tokens : size);
  }
  return static_cast<unsigned>(tiles);
}

/// Products with weights of one type and layout.
void multiply(DType dtype, Layout layout, const Tile* wanted, ChunkProducts& products, cudaStream_t stream) {
  std::array<int, max_products> outputs{};
  for (size_t i = 0; i < max_products; i++) outputs[i] = products.list[i].outputs;
  const auto count = static_cast<size_t>(products.count);
  const Tile tile =
      wanted != nullptr ? *wanted : choose_tile(std::span(outputs).first(count), products.tokens);
  const unsigned tiles = number_tiles(products, tile);
  switch (dtype) {
    case DType::f16:
      return multiply_chunk<DType::f16>(layout, tile, products, tiles, stream);
    case DType::bf16:
      return multiply_chunk<DType::bf16>(layout, tile, products, tiles, stream);
    case DType::i8:
      return multiply_chunk<DType::i8>(layout, tile, products, tiles, stream);
    case DType::i4:
      return multiply_chunk<DType::i4>(layout, tile, products, tiles, stream);
    default:
      return multiply_chunk<DType::f32>(layout, tile, products, tiles, stream);
  }
}

constexpr int finish_threads = 256;

__global__ void __launch_bounds__(finish_threads)
    finish_kernel(const ChunkProduct p, const float* sums, int first_token) {
  const int output = static_cast<int>(blockIdx.x * finish_threads + threadIdx.x);
  const int token = static_cast<int>(blockIdx.y);
  if (output < p.outputs)
    store_sum(p, sums[static_cast<int64_t>(token) * p.outputs + output], first_token + token, output);
}

/// By the library, as many tokens at once as there is memory for their sums. False when it does not want to.
bool multiply_by_library(const Product& product, const ChunkProduct& p, int tokens,
                         const Workspace& workspace, cudaStream_t stream) {
  constexpr int fewest = 64, most = 4096;  // of a slice
  const DType dtype = product.weight.dtype;
  if (workspace.library == nullptr || tokens < library_tokens || p.parts > 1 || p.inputs == 0 ||
      p.outputs == 0 || product.weight.layout != Layout::cuda_blocks ||
      (dtype != DType::f16 && dtype != DType::bf16)) {
    return false;
  }
  const auto room = static_cast<int64_t>(workspace.library_sum_bytes / sizeof(float)) / p.outputs;
  const auto slice = static_cast<int>(std::min<int64_t>(room, most));
  if (slice < fewest) return false;
  for (int begin = 0; begin < tokens; begin += slice) {
    const int count = std::min(slice, tokens - begin);
    const int inputs = static_cast<int>(p.row_bytes / 2), x_stride = static_cast<int>(p.x_row_bytes / 2);
    const LibraryProduct part = {
        dtype,  p.weight, p.x + begin * p.x_row_bytes, workspace.library_sums, p.outputs, count, inputs,
        inputs, x_stride};
    if (!workspace.library->multiply(part)) {
      if (begin > 0) throw Error("matmul: the library took some tokens of a chunk and not the others");
      return false;
    }
    const dim3 grid(static_cast<unsigned>((p.outputs + finish_threads - 1) / finish_threads),
                    static_cast<unsigned>(count));
    launch(finish_kernel, grid, finish_threads, 0, stream, p, workspace.library_sums, begin);
  }
  return true;
}

/// At most max_products.
void matmul_together(std::span<const Product> products, const Tile* tile, const Workspace& workspace,
                     cudaStream_t stream) {
  const int64_t tokens = products[0].x.rows();
  Preparation preparation(workspace, tokens);
  std::array<ChunkProduct, max_products> all{};
  for (size_t i = 0; i < products.size(); i++) all[i] = chunk_product(products[i], workspace, preparation);
  preparation.launch(stream);
  std::array<bool, max_products> done{};
  for (size_t i = 0; i < products.size() && tile == nullptr; i++)
    done[i] = multiply_by_library(products[i], all[i], static_cast<int>(tokens), workspace, stream);
  for (const Layout layout : {Layout::cuda_blocks, Layout::input_rows}) {
    for (const DType dtype : {DType::f16, DType::bf16, DType::i8, DType::i4, DType::f32}) {
      ChunkProducts group{};
      group.tokens = static_cast<int>(tokens);
      for (size_t i = 0; i < products.size(); i++) {
        const Tensor& weight = products[i].weight;
        if (weight.layout == layout && weight.dtype == dtype && all[i].outputs > 0 && !done[i])
          group.list[group.count++] = all[i];
      }
      if (group.count > 0) multiply(dtype, layout, tile, group, stream);
    }
  }
}

void matmul_all(std::span<const Product> products, const Tile* tile, const Workspace& workspace,
                cudaStream_t stream) {
  for (size_t i = 0; i < products.size(); i += max_products) {
    const size_t count = std::min<size_t>(max_products, products.size() - i);
    matmul_together(products.subspan(i, count), tile, workspace, stream);
  }
}

}  // namespace

// Blocks must be enough for a large device's multiprocessors, of which it has 100 to 170, and for few tokens,
// where what matters is how many loads are under way, several times so many.
Tile choose_tile(std::span<const int> outputs, int tokens) {
  constexpr struct {
    int tokens;                         ///< up to so many
    int64_t square_tiles, large_tiles;  ///< the least that make such tiles worth while; 0: never
  } table[] = {{16, 512, 0}, {64, 128, 0}, {INT_MAX, 128, 128}};
  const auto* row = table;
  while (tokens > row->tokens) row++;
  int64_t square = 0, large = 0;
  for (const int o : outputs) {
    square += tiles_of(o, tokens, square_size, square_size);
    large += tiles_of(o, tokens, large_size, large_size);
  }
  if (row->large_tiles > 0 && large >= row->large_tiles) return Tile::large;
  return square >= row->square_tiles ? Tile::square : Tile::narrow;
}

void matmul(std::span<const Product> products, const Workspace& workspace, cudaStream_t stream) {
  matmul_all(products, nullptr, workspace, stream);
}

void matmul(std::span<const Product> products, Tile tile, const Workspace& workspace, cudaStream_t stream) {
  matmul_all(products, &tile, workspace, stream);
}

}  // namespace rwkv::cuda
