// How products read their inputs: shared by products of one token and of several.
#pragma once

#include <cstring>

#include "core/half.h"
#include "cpu/kernels/isa.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"

namespace rwkv::cpu::ISA {

constexpr bool bf16_products = RWKV_ISA >= RWKV_ISA_avx512bf16;
constexpr bool has_tiles = RWKV_ISA == RWKV_ISA_amx;
constexpr int64_t line_bytes = 64;

namespace {

inline bool is_nonzero(Operand operand) { return operand >= Operand::nonzero_f32; }
inline bool is_bf16(Operand operand) { return operand == Operand::bf16 || operand == Operand::bf16_tiles; }

#if RWKV_ISA >= RWKV_ISA_avx512bf16
/// sums + a line of pairs of weights times a pair of inputs, the second product first.
inline Vec add_pairs(Vec sums, const Bytes& line, const std::byte* pair) {
  int32_t bits;
  std::memcpy(&bits, pair, 4);
  return {_mm512_dpbf16_ps(sums.v, reinterpret_cast<__m512bh>(line.v),
                           reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits)))};
}
#endif

/// Sums of products of Operand::integers are in this unit: with it that of 32 integers does not overflow
/// where their inputs are finite, though a scale of zero may follow, which makes zero of it.
inline constexpr float integer_sum_unit = 0x1p12f;

/// Inputs of a step as Operand::integers, arranged for add_products(), which has the excess too.
struct alignas(64) IntegerStep {
  std::byte inputs[16][8];  ///< for the four inputs of a line
  float scale[2];           ///< for 32 inputs each, in integer_sum_unit
  int32_t excess[2];
};

/// The pair-th two lines, of eight inputs, of a step of integers; at(offset) is a line of the step.
template <DType type, class At>
void load_lines(int64_t pair, At at, Bytes (&lines)[2]) {
  const int64_t offset = line_bytes + pair * bytes_of(type, 8 * block_outputs);
  if constexpr (type == DType::i4) {
    load_int4(at(offset), lines);
  } else {
    lines[0] = load_bytes(at(offset));
    lines[1] = load_bytes(at(offset + line_bytes));
  }
}

inline Vec load_f32_line(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
inline Vec load_f16_line(const std::byte* p) { return load_f16(p); }
inline Vec load_bf16_line(const std::byte* p) { return load_bf16(p); }

/// body.operator()<the format of this type>()
template <class F32, class F16, class BF16, class I8, class I4, class Body>
inline void with_format(DType dtype, Body body) {
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

/// Of a row of an input_rows matrix: bytes of scales before the weights, if any.
inline int64_t row_scale_bytes(const MatrixLayout& m) {
  return is_quantized(m.dtype) ? ((m.outputs + scale_group - 1) / scale_group * 2 + 63) / 64 * 64 : 0;
}

/// The scale of an output in such a row.
inline float row_scale(const std::byte* row, int64_t output) {
  BFloat16 scale;
  std::memcpy(&scale.bits, row + output / scale_group * 2, 2);
  return to_float(scale);
}

}  // namespace
}  // namespace rwkv::cpu::ISA
