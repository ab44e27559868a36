// Products of one token.
//
// Every output is one chain of fused multiply-adds over its inputs in ascending order (int8: one chain per
// group of 32, scaled, then added up). Lanes are outputs: no horizontal sums, one broadcast input per line of
// weights.
//
// Bytes and operations: a product reads its weights once, outputs * inputs * 2 bytes for bf16, and does one
// multiply-add per weight; 64-byte lines at 20 GB/s and 3 GHz leave a core 9 cycles a line, and a bf16 line
// costs 2 to 4 instructions.
#include <algorithm>
#include <cstring>
#include <utility>

#include "core/half.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/operand.h"

namespace rwkv::cpu::ISA {
namespace {

// Weight formats of cpu_blocks. step(sums, w, block_bytes, x) adds the products of one step of inputs, the
// first of which is at x.

template <int blocks>
using Sums = Vec[blocks];

// One input a step.
template <int64_t step_bytes, Vec (*load_line)(const std::byte*)>
struct SingleBlocks {
  static constexpr int64_t inputs = 1, bytes = step_bytes, input_bytes = 4;
  template <int blocks>
  static void step(Sums<blocks>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x) {
    Vec input = set1(*reinterpret_cast<const float*>(x));
    for (int b = 0; b < blocks; b++) sums[b] = fma(load_line(w + b * block_bytes), input, sums[b]);
  }
};
Vec load_f32_line(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
Vec load_f16_line(const std::byte* p) { return load_f16(p); }
using F32Blocks = SingleBlocks<64, load_f32_line>;
using F16Blocks = SingleBlocks<32, load_f16_line>;

// Two inputs a line.
struct BF16Blocks {
  static constexpr int64_t inputs = 2, bytes = 64, input_bytes = bf16_products ? 2 : 4;
  template <int blocks>
  static void step(Sums<blocks>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x) {
    for (int b = 0; b < blocks; b++) {
#if RWKV_ISA >= RWKV_ISA_avx512bf16
      sums[b] = add_pairs(sums[b], w + b * block_bytes, x);
#else
      Vec first, second;
      load_bf16_pairs(w + b * block_bytes, first, second);
      const auto* input = reinterpret_cast<const float*>(x);
      sums[b] = fma(first, set1(input[0]), sums[b]);
      sums[b] = fma(second, set1(input[1]), sums[b]);
#endif
    }
  }
};

// One step is 64 inputs: a line of scales for two groups, then 16 lines of four inputs.
struct I8Blocks {
  static constexpr int64_t inputs = int8_inputs, bytes = int8_step_bytes, input_bytes = 4;
  template <int blocks>
  static void step(Sums<blocks>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x) {
    for (int64_t group = 0; group < 2; group++) {
      Sums<blocks> parts;
      for (Vec& part : parts) part = set1(0);
      for (int64_t line = group * 8; line < group * 8 + 8; line++) {
        const auto* input = reinterpret_cast<const float*>(x) + line * 4;
        for (int b = 0; b < blocks; b++) {
          Vec weights[4];
          load_i8_quads(w + b * block_bytes + 64 + line * 64, weights);
          for (int j = 0; j < 4; j++) parts[b] = fma(weights[j], set1(input[j]), parts[b]);
        }
      }
      for (int b = 0; b < blocks; b++)
        sums[b] = fma(load_bf16(w + b * block_bytes + group * 32), parts[b], sums[b]);
    }
  }
};

#if RWKV_ISA >= RWKV_ISA_avx512bf16
// The same with inputs in two bytes: two instructions a line, and exact sums of 32 products.
struct I8BytePairs {
  static constexpr int64_t inputs = int8_inputs, bytes = int8_step_bytes,
                           input_bytes = sizeof(ByteStep) / int8_inputs;
  static __m512i input(const int8_t (&quad)[4]) {
    int32_t bits;
    std::memcpy(&bits, quad, 4);
    return _mm512_set1_epi32(bits);
  }
  template <int blocks>
  static void step(Sums<blocks>& sums, const std::byte* w, int64_t block_bytes, const std::byte* x) {
    const auto& step = *reinterpret_cast<const ByteStep*>(x);
    for (int group = 0; group < 2; group++) {
      __m512i high[blocks], low[blocks];
      for (int b = 0; b < blocks; b++) {
        high[b] = _mm512_setzero_si512();
        low[b] = _mm512_set1_epi32(-step.excess[group]);
      }
      for (int line = group * 8; line < group * 8 + 8; line++) {
        for (int b = 0; b < blocks; b++) {
          const __m512i weights = _mm512_xor_si512(_mm512_loadu_si512(w + b * block_bytes + 64 + line * 64),
                                                   _mm512_set1_epi8(-128));
          high[b] = _mm512_dpbusd_epi32(high[b], weights, input(step.bytes[line][0]));
          low[b] = _mm512_dpbusd_epi32(low[b], weights, input(step.bytes[line][1]));
        }
      }
      for (int b = 0; b < blocks; b++) {
        const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(high[b], 8), low[b]);
        const Vec part = mul({_mm512_cvtepi32_ps(sum)}, set1(step.scale[group]));
        sums[b] = fma(load_bf16(w + b * block_bytes + group * 32), part, sums[b]);
      }
    }
  }
};
#endif

template <class Format, int blocks>
void multiply(const PreparedProduct& p, int64_t block) {
  const Product& product = *p.product;
  MatrixLayout m = layout_of(product.weight);
  int64_t block_bytes = m.unit_bytes();
  const std::byte *w = product.weight.data + block * block_bytes, *x = p.x;
  Sums<blocks> sums;
  for (Vec& sum : sums) sum = set1(0);
  for (int64_t k = 0; k < m.inputs; k += Format::inputs) {
    Format::template step<blocks>(sums, w, block_bytes, x);
    w += Format::bytes;
    x += Format::inputs * Format::input_bytes;
  }
  for (int b = 0; b < blocks; b++) {
    int64_t output = (block + b) * block_outputs;
    finish(product, 0, output, std::min(block_outputs, m.outputs - output), sums[b]);
  }
}

template <class Format>
void multiply(const PreparedProduct& p, Range blocks) {
  int64_t block = blocks.begin;
  // Four streams of weights keep more loads in flight.
  for (; block + 4 <= blocks.end; block += 4) multiply<Format, 4>(p, block);
  for (; block < blocks.end; block++) multiply<Format, 1>(p, block);
}

// Weight formats of input_rows: 16 weights of a row, and what they are multiplied with for an input.

template <int64_t element, Vec (*load_line)(const std::byte*)>
struct PlainRows {
  static constexpr int64_t bytes = element;
  static Vec load(const std::byte* weights, int64_t output) { return load_line(weights + output * element); }
  static float factor(const std::byte*, int64_t, float x) { return x; }
};
Vec load_bf16_line(const std::byte* p) { return load_bf16(p); }
using F32Rows = PlainRows<4, load_f32_line>;
using F16Rows = PlainRows<2, load_f16_line>;
using BF16Rows = PlainRows<2, load_bf16_line>;
struct I8Rows {
  static constexpr int64_t bytes = 1;
  static Vec load(const std::byte* weights, int64_t output) { return load_i8(weights + output); }
  static float factor(const std::byte* row, int64_t output, float x) { return row_scale(row, output) * x; }
};

// Outputs [output, output + 16 * vectors): the rows of the inputs that are not zero. A row's part is too
// short for the processor to see it coming.
constexpr int64_t rows_ahead = 8;
template <class Format, int vectors>
void add_rows(const PreparedProduct& p, int64_t output, int64_t end) {
  constexpr int in_group = scale_group / 16;
  MatrixLayout m = layout_of(p.product->weight);
  int64_t row_bytes = m.unit_bytes(), scale_bytes = row_scale_bytes(m);
  const auto* x = reinterpret_cast<const float*>(p.x);
  Vec sums[vectors];
  for (Vec& sum : sums) sum = set1(0);
  const std::byte* weights = p.product->weight.data;
  for (int64_t i = 0; i < p.nonzero_count; i++) {
    int64_t input = p.nonzero[i];
    const std::byte* row = weights + input * row_bytes;
    const std::byte* ahead = weights + p.nonzero[std::min(i + rows_ahead, p.nonzero_count - 1)] * row_bytes;
    for (int64_t at = 0; at < vectors * 16 * Format::bytes; at += 64)
      prefetch(ahead + scale_bytes + output * Format::bytes + at);
    for (int g = 0; g < vectors; g += in_group) {
      Vec factor = set1(Format::factor(row, output + g * 16, x[input]));
      for (int v = g; v < std::min(g + in_group, vectors); v++)
        sums[v] = fma(Format::load(row + scale_bytes, output + v * 16), factor, sums[v]);
    }
  }
  for (int v = 0; v < vectors; v++) {
    int64_t at = output + v * 16;
    finish(*p.product, 0, at, std::min<int64_t>(16, end - at), sums[v]);
  }
}

template <class Format>
void add_rows(const PreparedProduct& p, Range outputs) {
  int64_t at = outputs.begin;
  if constexpr (row_vectors > 4) {
    constexpr int64_t wide = row_vectors * 16;
    for (; at + wide <= outputs.end; at += wide) add_rows<Format, row_vectors>(p, at, outputs.end);
  }
  for (; at + 64 <= outputs.end; at += 64) add_rows<Format, 4>(p, at, outputs.end);
  for (; at < outputs.end; at += 16) add_rows<Format, 1>(p, at, outputs.end);
}

/// body.operator()<the format of this type>()
template <class F32, class F16, class BF16, class I8, class Body>
void with_format(DType dtype, Body body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<F32>();
    case DType::f16:
      return body.template operator()<F16>();
    case DType::bf16:
      return body.template operator()<BF16>();
    default:
      return body.template operator()<I8>();
  }
}

}  // namespace

void matvec_blocks(const PreparedProduct& p, Range blocks) {
#if RWKV_ISA >= RWKV_ISA_avx512bf16
  if (p.operand == Operand::byte_pairs) return multiply<I8BytePairs>(p, blocks);
#endif
  with_format<F32Blocks, F16Blocks, BF16Blocks, I8Blocks>(
      p.product->weight.dtype, [&]<class Format>() { multiply<Format>(p, blocks); });
}

void matvec_rows(const PreparedProduct& p, Range outputs) {
  with_format<F32Rows, F16Rows, BF16Rows, I8Rows>(p.product->weight.dtype,
                                                  [&]<class Format>() { add_rows<Format>(p, outputs); });
}

}  // namespace rwkv::cpu::ISA
