// Products of one token.
//
// Every output is one chain of fused multiply-adds over its inputs in ascending order (integers: exact sums
// of the products of 32 inputs, scaled, then added up). Lanes are outputs: no horizontal sums, one broadcast
// input per line of weights.
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

/// Weights of a step of inputs, in some blocks. What lies `ahead` bytes further on is asked for, line by line
/// as these are read: the processor's own prefetching ends with each page, and many requests at once would
/// wait for each other.
struct Weights {
  const std::byte* first;
  int64_t block_bytes, ahead;

  [[nodiscard]] const std::byte* line(int block, int64_t offset) const {
    const std::byte* at = first + block * block_bytes + offset;
    prefetch(at + ahead);
    return at;
  }
  [[nodiscard]] const std::byte* scales(int block) const { return first + block * block_bytes; }
};

// Weight formats of cpu_blocks. step(sums, w, x) adds the products of one step of inputs, the first of which
// is at x. Loops over blocks are unrolled, so that the compiler keeps the sums in registers.

template <int blocks>
using Sums = Vec[blocks];

// One input a step.
template <int64_t step_bytes, Vec (*load_line)(const std::byte*)>
struct SingleBlocks {
  static constexpr int64_t inputs = 1, bytes = step_bytes, input_bytes = 4;
  template <int blocks>
  static void step(Sums<blocks>& sums, const Weights& w, const std::byte* x) {
    Vec input = set1(*reinterpret_cast<const float*>(x));
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) sums[b] = fma(load_line(w.line(b, 0)), input, sums[b]);
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
  static void step(Sums<blocks>& sums, const Weights& w, const std::byte* x) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) {
#if RWKV_ISA >= RWKV_ISA_avx512bf16
      sums[b] = add_pairs(sums[b], w.line(b, 0), x);
#else
      Vec first, second;
      load_bf16_pairs(w.line(b, 0), first, second);
      const auto* input = reinterpret_cast<const float*>(x);
      sums[b] = fma(first, set1(input[0]), sums[b]);
      sums[b] = fma(second, set1(input[1]), sums[b]);
#endif
    }
  }
};

// One step is 64 inputs, two groups of 32.
template <DType type>
struct IntegerBlocks {
  static constexpr int64_t inputs = step_inputs, bytes = step_bytes(type),
                           input_bytes = sizeof(IntegerStep) / step_inputs;
  template <int blocks>
  static void step(Sums<blocks>& sums, const Weights& w, const std::byte* x) {
    const auto& step = *reinterpret_cast<const IntegerStep*>(x);
    for (int64_t group = 0; group < 2; group++) {
      IntegerSums parts[blocks];
#pragma GCC unroll 4
      for (IntegerSums& part : parts) part = no_sums(step.excess[group]);
#pragma GCC unroll 1
      for (int64_t pair = group * 4; pair < group * 4 + 4; pair++) {
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
          Bytes lines[2];
          load_lines<type>(
              pair, [&](int64_t offset) { return w.line(b, offset); }, lines);
          add_products(parts[b], lines[0], step.inputs[2 * pair]);
          add_products(parts[b], lines[1], step.inputs[2 * pair + 1]);
        }
      }
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++) {
        const std::byte* scales = group == 0 ? w.line(b, 0) : w.scales(b) + 32;
        sums[b] = fma(load_bf16(scales), mul(to_vec(parts[b]), set1(step.scale[group])), sums[b]);
      }
    }
  }
};

template <class Format>
constexpr float sum_unit = 1;
template <DType type>
constexpr float sum_unit<IntegerBlocks<type>> = integer_sum_unit;

// The same with fp32 inputs.
template <DType type>
struct WidenedBlocks {
  static constexpr int64_t inputs = step_inputs, bytes = step_bytes(type), input_bytes = 4;
  template <int blocks>
  static void step(Sums<blocks>& sums, const Weights& w, const std::byte* x) {
    const auto* input = reinterpret_cast<const float*>(x);
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) {
#pragma GCC unroll 1
      for (int64_t pair = 0; pair < 8; pair++) {
        Bytes lines[2];
        load_lines<type>(
            pair, [&](int64_t offset) { return w.line(b, offset); }, lines);
        const Vec scale = load_bf16(w.scales(b) + pair / 4 * 32);
        for (int line = 0; line < 2; line++) {
          Vec weights[4];
          widen(lines[line], scale, weights);
          for (int j = 0; j < 4; j++)
            sums[b] = fma(weights[j], set1(input[pair * 8 + line * 4 + j]), sums[b]);
        }
      }
    }
  }
};

constexpr int64_t read_ahead = 1024;

template <class Format, int blocks>
void multiply(const PreparedProduct& p, int64_t block) {
  const Product& product = *p.product;
  const MatrixLayout m = layout_of(product.weight);
  const int64_t block_bytes = m.unit_bytes();
  const std::byte *first = product.weight.data + block * block_bytes, *x = p.x;
  Sums<blocks> sums;
#pragma GCC unroll 4
  for (Vec& sum : sums) sum = set1(0);
  for (int64_t k = 0, at = 0; k < m.inputs; k += Format::inputs, at += Format::bytes) {
    // Behind these blocks come the next ones, not those that are read beside each other.
    const int64_t ahead = read_ahead + (at + read_ahead < block_bytes ? 0 : (blocks - 1) * block_bytes);
    Format::template step<blocks>(sums, {first + at, block_bytes, ahead}, x);
    x += Format::inputs * Format::input_bytes;
  }
#pragma GCC unroll 4
  for (int b = 0; b < blocks; b++) {
    int64_t output = (block + b) * block_outputs;
    finish(product, 0, output, std::min(block_outputs, m.outputs - output),
           mul(sums[b], set1(sum_unit<Format>)));
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

template <DType dtype, Vec (*load_line)(const std::byte*)>
struct PlainRows {
  static constexpr DType type = dtype;
  static Vec load(const std::byte* weights) { return load_line(weights); }
  static float factor(const std::byte*, int64_t, float x) { return x; }
};
Vec load_bf16_line(const std::byte* p) { return load_bf16(p); }
using F32Rows = PlainRows<DType::f32, load_f32_line>;
using F16Rows = PlainRows<DType::f16, load_f16_line>;
using BF16Rows = PlainRows<DType::bf16, load_bf16_line>;
template <DType dtype, Vec (*load_integers)(const void*)>
struct QuantizedRows {
  static constexpr DType type = dtype;
  static Vec load(const std::byte* weights) { return load_integers(weights); }
  static float factor(const std::byte* row, int64_t output, float x) { return row_scale(row, output) * x; }
};
using I8Rows = QuantizedRows<DType::i8, load_i8>;
using I4Rows = QuantizedRows<DType::i4, load_i4>;

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
    for (int64_t at = 0; at < bytes_of(Format::type, vectors * 16); at += 64)
      prefetch(ahead + scale_bytes + bytes_of(Format::type, output) + at);
    for (int g = 0; g < vectors; g += in_group) {
      Vec factor = set1(Format::factor(row, output + g * 16, x[input]));
      for (int v = g; v < std::min(g + in_group, vectors); v++)
        sums[v] =
            fma(Format::load(row + scale_bytes + bytes_of(Format::type, output + v * 16)), factor, sums[v]);
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
template <class F32, class F16, class BF16, class I8, class I4, class Body>
void with_format(DType dtype, Body body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<F32>();
    case DType::f16:
      return body.template operator()<F16>();
    case DType::bf16:
      return body.template operator()<BF16>();
    case DType::i4:
      return body.template operator()<I4>();
    default:
      return body.template operator()<I8>();
  }
}

}  // namespace

void matvec_blocks(const PreparedProduct& p, Range blocks) {
  const DType type = p.product->weight.dtype;
  auto run = [&]<class Format>() { multiply<Format>(p, blocks); };
  if (p.operand == Operand::integers) {
    return type == DType::i4 ? run.template operator()<IntegerBlocks<DType::i4>>()
                             : run.template operator()<IntegerBlocks<DType::i8>>();
  }
  with_format<F32Blocks, F16Blocks, BF16Blocks, WidenedBlocks<DType::i8>, WidenedBlocks<DType::i4>>(type,
                                                                                                    run);
}

void matvec_rows(const PreparedProduct& p, Range outputs) {
  with_format<F32Rows, F16Rows, BF16Rows, I8Rows, I4Rows>(
      p.product->weight.dtype, [&]<class Format>() { add_rows<Format>(p, outputs); });
}

}  // namespace rwkv::cpu::ISA
