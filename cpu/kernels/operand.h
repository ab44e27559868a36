// How products read their inputs: shared by products of one token and of several.
#pragma once

#include <cstring>

#include "core/half.h"
#include "cpu/kernels/isa.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"

namespace rwkv::cpu::ISA {
namespace {

constexpr bool bf16_products = RWKV_ISA >= RWKV_ISA_avx512bf16;
constexpr bool has_tiles = RWKV_ISA == RWKV_ISA_amx;

#if RWKV_ISA >= RWKV_ISA_avx512bf16
/// sums + a line of pairs of weights times a pair of inputs, the second product first.
inline Vec add_pairs(Vec sums, const std::byte* line, const std::byte* pair) {
  int32_t bits;
  std::memcpy(&bits, pair, 4);
  return {_mm512_dpbf16_ps(sums.v, reinterpret_cast<__m512bh>(_mm512_loadu_si512(line)),
                           reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits)))};
}
#endif

/// Of a row of an input_rows matrix: bytes of scales before the weights; 0 unless int8.
inline int64_t row_scale_bytes(const MatrixLayout& m) {
  return m.dtype == DType::i8 ? ((m.outputs + scale_group - 1) / scale_group * 2 + 63) / 64 * 64 : 0;
}

/// Sixteen weights of such a row: value times scale, which fp32 holds exactly.
inline Vec load_i8_row(const std::byte* row, int64_t scale_bytes, int64_t output) {
  BFloat16 scale;
  std::memcpy(&scale.bits, row + output / scale_group * 2, 2);
  return mul(load_i8(row + scale_bytes + output), set1(to_float(scale)));
}

}  // namespace
}  // namespace rwkv::cpu::ISA
