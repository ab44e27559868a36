// Matrix products on both CPU layouts.
//
// Every output is one chain of fused multiply-adds over its inputs in a fixed order (int8: one chain per
// group of 32, scaled, then added up), whether one token is computed or a tile of them: so a token's result
// does not depend on the chunk it came in. Lanes are outputs: no horizontal sums, one broadcast input per
// line of weights.
//
// Bytes and operations: a product of one token reads its weights once, outputs * inputs * 2 bytes for bf16,
// and does one multiply-add per weight; 64-byte lines at 20 GB/s and 3 GHz leave a core 9 cycles a line, and
// a bf16 line costs 2 to 4 instructions. A tile of tokens reuses each line from the cache tile_tokens times,
// so that prefill is bound by arithmetic.
#include <algorithm>
#include <cstring>
#include <utility>

#include "core/half.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/epilogue.h"
#if RWKV_ISA == RWKV_ISA_amx
#include "cpu/kernels/tiles.h"
#endif

namespace rwkv::cpu::ISA {
namespace {

constexpr bool bf16_products = RWKV_ISA == RWKV_ISA_avx512bf16 || RWKV_ISA == RWKV_ISA_amx;

constexpr int64_t rows_strip = 64;   ///< outputs that a pass over the rows of an input_rows matrix computes
constexpr int64_t rows_depth = 256;  ///< inputs of such a pass with several tokens: they stay in the cache

// Weight formats of cpu_blocks. Sums::step(line, x, k) adds the products of one step of inputs.

template <int blocks, int tokens>
using Sums = Vec[blocks][tokens];

// One input a step.
template <int64_t step_bytes, Vec (*load_line)(const std::byte*)>
struct SingleBlocks {
  static constexpr int64_t inputs = 1, bytes = step_bytes;
  template <int blocks, int tokens>
  static void step(Sums<blocks, tokens>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x,
                   int64_t x_stride, int64_t k) {
    for (int b = 0; b < blocks; b++) {
      Vec weights = load_line(w + b * block_bytes);
      for (int t = 0; t < tokens; t++) {
        Vec input = set1(reinterpret_cast<const float*>(x + t * x_stride)[k]);
        sums[b][t] = fma(weights, input, sums[b][t]);
      }
    }
  }
};
Vec load_f32_line(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
Vec load_f16_line(const std::byte* p) { return load_f16(p); }
using F32Blocks = SingleBlocks<64, load_f32_line>;
using F16Blocks = SingleBlocks<32, load_f16_line>;

// Two inputs a line, the second one first: the order of the instruction for bf16 pairs.
struct BF16Blocks {
  static constexpr int64_t inputs = 2, bytes = 64;
  template <int blocks, int tokens>
  static void step(Sums<blocks, tokens>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x,
                   int64_t x_stride, int64_t k) {
    for (int b = 0; b < blocks; b++) {
#if RWKV_ISA == RWKV_ISA_avx512bf16 || RWKV_ISA == RWKV_ISA_amx
      auto weights = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + b * block_bytes));
      for (int t = 0; t < tokens; t++) {
        int32_t pair;
        std::memcpy(&pair, x + t * x_stride + k * 2, 4);
        sums[b][t].v =
            _mm512_dpbf16_ps(sums[b][t].v, weights, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)));
      }
#else
      Vec first, second;
      load_bf16_pairs(w + b * block_bytes, first, second);
      for (int t = 0; t < tokens; t++) {
        const float* input = reinterpret_cast<const float*>(x + t * x_stride) + k;
        sums[b][t] = fma(second, set1(input[1]), sums[b][t]);
        sums[b][t] = fma(first, set1(input[0]), sums[b][t]);
      }
#endif
    }
  }
};

// One step is 64 inputs: a line of scales for two groups, then 16 lines of four inputs.
struct I8Blocks {
  static constexpr int64_t inputs = int8_inputs, bytes = int8_step_bytes;
  template <int blocks, int tokens>
  static void step(Sums<blocks, tokens>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x,
                   int64_t x_stride, int64_t k) {
    for (int64_t group = 0; group < 2; group++) {
      Sums<blocks, tokens> parts;
      for (auto& row : parts) std::fill(std::begin(row), std::end(row), set1(0));
      for (int64_t line = group * 8; line < group * 8 + 8; line++) {
        for (int b = 0; b < blocks; b++) {
          Vec weights[4];
          load_i8_quads(w + b * block_bytes + 64 + line * 64, weights);
          for (int t = 0; t < tokens; t++) {
            const float* input = reinterpret_cast<const float*>(x + t * x_stride) + k + line * 4;
            for (int j = 0; j < 4; j++) parts[b][t] = fma(weights[j], set1(input[j]), parts[b][t]);
          }
        }
      }
      for (int b = 0; b < blocks; b++) {
        Vec scale = load_bf16(w + b * block_bytes + group * 32);
        for (int t = 0; t < tokens; t++) sums[b][t] = fma(scale, parts[b][t], sums[b][t]);
      }
    }
  }
};

template <class Format, int blocks, int tokens>
void tile(const PreparedProduct& p, int64_t block, int64_t token) {
  const Product& product = *p.product;
  MatrixLayout m = layout_of(product.weight);
  int64_t block_bytes = m.unit_bytes();
  const std::byte* w = product.weight.data + block * block_bytes;
  const std::byte* x = p.x + token * p.x_stride;
  Sums<blocks, tokens> sums;
  for (auto& row : sums) std::fill(std::begin(row), std::end(row), set1(0));
  for (int64_t k = 0; k < m.inputs; k += Format::inputs, w += Format::bytes) {
    Format::template step<blocks, tokens>(sums, w, block_bytes, x, p.x_stride, k);
  }
  for (int b = 0; b < blocks; b++) {
    int64_t output = (block + b) * block_outputs;
    int64_t count = std::min(block_outputs, m.outputs - output);
    for (int t = 0; t < tokens; t++) finish(product, token + t, output, count, sums[b][t]);
  }
}

template <class Format, int blocks>
void tiles(const PreparedProduct& p, int64_t block) {
  int64_t tokens = p.product->x.rows(), t = 0;
  for (; t + tile_tokens <= tokens; t += tile_tokens) tile<Format, blocks, int{tile_tokens}>(p, block, t);
  for (; t + 3 <= tokens; t += 3) tile<Format, blocks, 3>(p, block, t);
  for (; t < tokens; t++) tile<Format, blocks, 1>(p, block, t);
}

template <class Format>
void blocks_of(const PreparedProduct& p, Range range) {
  int64_t block = range.begin;
  if (p.product->x.rows() == 1) {
    // One token has registers to spare: four streams of weights keep more loads in flight.
    for (; block + 4 <= range.end; block += 4) tile<Format, 4, 1>(p, block, 0);
  } else {
    for (; block + tile_blocks <= range.end; block += tile_blocks) tiles<Format, int{tile_blocks}>(p, block);
  }
  for (; block < range.end; block++) tiles<Format, 1>(p, block);
}

void matmul_blocks(const PreparedProduct& p, Range range, [[maybe_unused]] std::byte* scratch) {
#if RWKV_ISA == RWKV_ISA_amx
  if (p.operand == Operand::bf16_tiles) return matmul_tiles(p, range, scratch);
#endif
  switch (p.product->weight.dtype) {
    case DType::f32:
      return blocks_of<F32Blocks>(p, range);
    case DType::f16:
      return blocks_of<F16Blocks>(p, range);
    case DType::bf16:
      return blocks_of<BF16Blocks>(p, range);
    default:
      return blocks_of<I8Blocks>(p, range);
  }
}

// Weight formats of input_rows. load(row, outputs, output) gives 16 weights, scaled(row,
// output, x) the input that they are multiplied with: for int8, x times their scale.

template <int64_t element, Vec (*load_line)(const std::byte*)>
struct PlainRows {
  static Vec load(const std::byte* row, int64_t, int64_t output) { return load_line(row + output * element); }
  static Vec scaled(const std::byte*, int64_t, float x) { return set1(x); }
};
Vec load_bf16_line(const std::byte* p) { return load_bf16(p); }
using F32Rows = PlainRows<4, load_f32_line>;
using F16Rows = PlainRows<2, load_f16_line>;
using BF16Rows = PlainRows<2, load_bf16_line>;
struct I8Rows {
  static Vec load(const std::byte* row, int64_t outputs, int64_t output) {
    int64_t scales = ((outputs + scale_group - 1) / scale_group * 2 + 63) / 64 * 64;
    return load_i8(row + scales + output);
  }
  static Vec scaled(const std::byte* row, int64_t output, float x) {
    BFloat16 scale;
    std::memcpy(&scale.bits, row + output / scale_group * 2, 2);
    return set1(to_float(scale) * x);
  }
};

// sums[0..63] += rows of the nonzero inputs, for a strip of outputs of one token.
template <class Format>
void strip_one(const PreparedProduct& p, int64_t output, int64_t vectors, Vec (&sums)[4]) {
  MatrixLayout m = layout_of(p.product->weight);
  int64_t row_bytes = m.unit_bytes();
  const auto* x = reinterpret_cast<const float*>(p.x);
  for (int64_t i = 0; i < p.nonzero_count; i++) {
    int64_t input = p.nonzero[i];
    const std::byte* row = p.product->weight.data + input * row_bytes;
    for (int64_t v = 0; v < vectors; v++) {
      int64_t at = output + v * 16;
      sums[v] = fma(Format::load(row, m.outputs, at), Format::scaled(row, at, x[input]), sums[v]);
    }
  }
}

template <class Format, int tokens>
void strip_tile(const PreparedProduct& p, int64_t output, Range inputs, int64_t token, float* sums) {
  MatrixLayout m = layout_of(p.product->weight);
  int64_t row_bytes = m.unit_bytes();
  Vec acc[tokens];
  for (int t = 0; t < tokens; t++) acc[t] = load(sums + (token + t) * rows_strip);
  for (int64_t k = inputs.begin; k < inputs.end; k++) {
    const std::byte* row = p.product->weight.data + k * row_bytes;
    Vec weights = Format::load(row, m.outputs, output);
    for (int t = 0; t < tokens; t++) {
      float x = reinterpret_cast<const float*>(p.x + (token + t) * p.x_stride)[k];
      acc[t] = fma(weights, Format::scaled(row, output, x), acc[t]);
    }
  }
  for (int t = 0; t < tokens; t++) store(sums + (token + t) * rows_strip, acc[t]);
}

template <class Format>
void strip_many(const PreparedProduct& p, int64_t output, int64_t vectors, float* sums) {
  int64_t tokens = p.product->x.rows(), inputs = p.product->x.cols();
  std::fill(sums, sums + tokens * rows_strip, 0.0f);
  for (int64_t k = 0; k < inputs; k += rows_depth) {
    Range depth{k, std::min(k + rows_depth, inputs)};
    for (int64_t v = 0; v < vectors; v++) {
      int64_t at = output + v * 16, t = 0;
      float* column = sums + v * 16;
      for (; t + tile_tokens <= tokens; t += tile_tokens) {
        strip_tile<Format, int{tile_tokens}>(p, at, depth, t, column);
      }
      for (; t < tokens; t++) strip_tile<Format, 1>(p, at, depth, t, column);
    }
  }
}

// Adding zero to a sum makes -0, which a product may underflow to, +0, whether or not zero inputs came after
// it.
template <class Format>
void strips(const PreparedProduct& p, Range outputs, float* sums) {
  int64_t tokens = p.product->x.rows();
  for (int64_t output = outputs.begin; output < outputs.end; output += rows_strip) {
    int64_t width = std::min(rows_strip, outputs.end - output), vectors = (width + 15) / 16;
    if (tokens == 1) {
      Vec one[4] = {set1(0), set1(0), set1(0), set1(0)};
      if (vectors == 4) {
        strip_one<Format>(p, output, 4, one);
      } else {
        strip_one<Format>(p, output, vectors, one);
      }
      for (int64_t v = 0; v < vectors; v++) {
        finish(*p.product, 0, output + v * 16, std::min<int64_t>(16, width - v * 16), add(one[v], set1(0)));
      }
      continue;
    }
    strip_many<Format>(p, output, vectors, sums);
    for (int64_t t = 0; t < tokens; t++) {
      for (int64_t v = 0; v < vectors; v++) {
        Vec y = add(load(sums + t * rows_strip + v * 16), set1(0));
        finish(*p.product, t, output + v * 16, std::min<int64_t>(16, width - v * 16), y);
      }
    }
  }
}

void matmul_rows(const PreparedProduct& p, Range outputs, std::byte* scratch) {
#if RWKV_ISA == RWKV_ISA_amx
  if (p.operand == Operand::bf16_tiles) {
    return matmul_tiles(p, {outputs.begin / block_outputs, (outputs.end + block_outputs - 1) / block_outputs},
                        scratch);
  }
#endif
  auto* sums = reinterpret_cast<float*>(scratch);
  switch (p.product->weight.dtype) {
    case DType::f32:
      return strips<F32Rows>(p, outputs, sums);
    case DType::f16:
      return strips<F16Rows>(p, outputs, sums);
    case DType::bf16:
      return strips<BF16Rows>(p, outputs, sums);
    default:
      return strips<I8Rows>(p, outputs, sums);
  }
}

Operand operand_of(Layout layout, DType weight, int64_t tokens) {
  if (RWKV_ISA == RWKV_ISA_amx && tokens > 1 && (weight == DType::bf16 || weight == DType::i8))
    return Operand::bf16_tiles;
  if (weight != DType::bf16) return Operand::f32;
  return bf16_products && layout == Layout::cpu_blocks ? Operand::bf16 : Operand::rounded_f32;
}

void prepare(const float* x, int64_t count, Operand operand, std::byte* out) {
  int64_t padded = (count + 63) / 64 * 64;
  if (operand == Operand::f32) {
    std::memcpy(out, x, static_cast<size_t>(count) * 4);
    std::memset(out + count * 4, 0, static_cast<size_t>(padded - count) * 4);
    return;
  }
  // Sixteen values at a time: rounded_f32 64 bytes, bf16 32 bytes, the tiles' lines of 32 values a tile
  // apart.
  for (int64_t i = 0; i < padded; i += 16) {
    int64_t rest = std::clamp<int64_t>(count - i, 0, 16);
    Vec v = rest == 16 ? load(x + i) : load_part(x + i, rest);
    switch (operand) {
      case Operand::rounded_f32:
        store(reinterpret_cast<float*>(out + i * 4), round_to_bf16(v));
        break;
      case Operand::bf16:
        store_bf16(out + i * 2, v);
        break;
      default:
        store_bf16(out + i / 32 * 1024 + i % 32 * 2, v);
    }
  }
}

int64_t scratch_bytes(int64_t tokens) {
  int64_t strips = tokens * rows_strip * 4;
#if RWKV_ISA == RWKV_ISA_amx
  return std::max(strips, tile_scratch_bytes(tokens));
#else
  return strips;
#endif
}

}  // namespace

// The other half of the table is in recurrence.cpp and rows.cpp.
void embed(float* out, const std::byte* row, DType dtype, int64_t width);
void normalize(float* out, const float* x, const Norm& norm, int64_t width);
void mix(const TokenShift& shift, int64_t t);
void wkv4(const Wkv4& wkv, Range channels);
void wkv5(const Wkv5& wkv, Range heads);
void wkv7(const Wkv7& wkv, Range heads);

#define RWKV_TEXT_(name) #name
#define RWKV_TEXT(name) RWKV_TEXT_(name)
const Kernels kernels = {RWKV_TEXT(ISA), operand_of, prepare, scratch_bytes, matmul_blocks, matmul_rows,
                         embed,          normalize,  mix,     wkv4,          wkv5,          wkv7};

}  // namespace rwkv::cpu::ISA
