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

namespace {

#if RWKV_ISA >= RWKV_ISA_avx512bf16
/// sums + a line of pairs of weights times a pair of inputs, the second product first.
inline Vec add_pairs(Vec sums, const std::byte* line, const std::byte* pair) {
  int32_t bits;
  std::memcpy(&bits, pair, 4);
  return {_mm512_dpbf16_ps(sums.v, reinterpret_cast<__m512bh>(_mm512_loadu_si512(line)),
                           reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits)))};
}
#endif

/// Inputs of an int8 step as Operand::byte_pairs: input = scale * (256 * high + low). What products with
/// bytes that are 128 too large have too much is 128 * (the sum of the integers): `excess`.
struct alignas(64) ByteStep {
  int8_t bytes[16][2][4];  ///< for the four inputs of a line: high, low
  float scale[2];          ///< for 32 inputs each
  int32_t excess[2];
};

/// Of a row of an input_rows matrix: bytes of scales before the weights; 0 unless int8.
inline int64_t row_scale_bytes(const MatrixLayout& m) {
  return m.dtype == DType::i8 ? ((m.outputs + scale_group - 1) / scale_group * 2 + 63) / 64 * 64 : 0;
}

/// The scale of an output in such a row of int8.
inline float row_scale(const std::byte* row, int64_t output) {
  BFloat16 scale;
  std::memcpy(&scale.bits, row + output / scale_group * 2, 2);
  return to_float(scale);
}

}  // namespace
}  // namespace rwkv::cpu::ISA
