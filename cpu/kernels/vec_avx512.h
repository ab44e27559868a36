// Vec for AVX-512 F, BW, VL, DQ: one register. See vec_scalar.h for the contract.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels/prefetch.h"
#include "cpu/kernels/quads.h"
#include "ops/quantize.h"

namespace rwkv::cpu::ISA {

constexpr int64_t tile_tokens = 6;
constexpr int64_t tile_blocks = 4;

struct Vec {
  __m512 v;
};

inline Vec set1(float x) { return {_mm512_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline __mmask16 part_mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline Vec load_part(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(part_mask(n), p)}; }
inline void store_part(float* p, Vec a, int64_t n) { _mm512_mask_storeu_ps(p, part_mask(n), a.v); }

inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max_of(Vec limit, Vec x) { return {_mm512_max_ps(limit.v, x.v)}; }
inline Vec min_of(Vec limit, Vec x) { return {_mm512_min_ps(limit.v, x.v)}; }
inline Vec round_nearest(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec power_of_two(Vec n) {
  __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
inline Vec select_small(Vec x, float limit, Vec a, Vec b) {
  __mmask16 small = _mm512_cmp_ps_mask(_mm512_abs_ps(x.v), _mm512_set1_ps(limit), _CMP_LT_OQ);
  return {_mm512_mask_blend_ps(small, b.v, a.v)};
}
inline uint32_t at_least(Vec x, float limit) {
  return _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_GE_OQ);
}
inline uint32_t nonzero_lanes(Vec x) { return _mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
inline int64_t store_chosen(Vec x, uint32_t lanes, int64_t first, float* values, uint16_t* indices) {
  const auto chosen = static_cast<__mmask16>(lanes);
  const __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i index = _mm512_add_epi32(numbers, _mm512_set1_epi32(static_cast<int>(first)));
  _mm512_storeu_ps(values, _mm512_maskz_compress_ps(chosen, x.v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(indices),
                      _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(chosen, index)));
  return _mm_popcnt_u32(lanes);
}
constexpr int most_columns = 16;
inline void store_columns(float* to, const Vec (&rows)[most_columns], int64_t count) {
  __m512 v[16], pairs[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  // v[4 q + i] has rows 4 q ... 4 q + 3 of columns i, 4 + i, 8 + i and 12 + i.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    v[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    v[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    v[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512 upper = _mm512_shuffle_f32x4(v[i], v[4 + i], 0x44),
                 lower = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0x44);
    pairs[i] = _mm512_shuffle_f32x4(upper, lower, 0x88);
    pairs[4 + i] = _mm512_shuffle_f32x4(upper, lower, 0xdd);
    const __m512 right = _mm512_shuffle_f32x4(v[i], v[4 + i], 0xee),
                 last = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0xee);
    pairs[8 + i] = _mm512_shuffle_f32x4(right, last, 0x88);
    pairs[12 + i] = _mm512_shuffle_f32x4(right, last, 0xdd);
  }
  // What is written beyond a column is written again with the next one.
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    i* count + 16 <= 16 * count ? _mm512_storeu_ps(to + i * count, pairs[i])
                                : _mm512_mask_storeu_ps(to + i * count, part_mask(count), pairs[i]);
  }
}
inline float sum(Vec a) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline Vec load_f16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
inline Vec load_bf16(const void* p) {
  __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
}
inline Vec load_i8(const void* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))))};
}
inline __m512i bf16_bits(__m512 v) {
  __m512i bits = _mm512_castps_si512(v), upper = _mm512_srli_epi32(bits, 16);
  __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
  __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40));
}
inline Vec round_to_bf16(Vec v) { return {_mm512_castsi512_ps(_mm512_slli_epi32(bf16_bits(v.v), 16))}; }
#if RWKV_ISA >= RWKV_ISA_avx512bf16
// Numbers below the smallest normal one become zero, as they do in a product.
inline void store_bf16(void* p, Vec v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v.v)));
}
#else
inline void store_bf16(void* p, Vec v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bf16_bits(v.v)));
}
#endif
#if RWKV_ISA >= RWKV_ISA_avx512bf16
/// Pairs of 32 neighbouring 16-bit elements of two rows: the first 16 and, if wanted, the last 16.
inline void interleave(__m512i first, __m512i second, void* lower, void* upper) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i order =
      _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x10001)), _mm512_set1_epi32(0x200000));
  _mm512_storeu_si512(lower, _mm512_permutex2var_epi16(first, order, second));
  if (upper == nullptr) return;
  _mm512_storeu_si512(
      upper, _mm512_permutex2var_epi16(first, _mm512_add_epi32(order, _mm512_set1_epi32(0x100010)), second));
}
/// Thirty-two neighbouring elements, rounded.
inline Vec bf16_words(Vec first, Vec second) {
  return {reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(second.v, first.v))};
}
/// Sixteen pairs, rounded: first[i] and second[i].
inline void store_bf16_pairs(void* p, Vec first, Vec second) {
  const auto apart = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i order =
      _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x10001)), _mm512_set1_epi32(0x100000));
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, apart));
}
#endif
inline Vec load_i4(const void* p) {
  const __m128i words = _mm_cvtepu8_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  const __m128i codes = _mm_and_si128(_mm_or_si128(words, _mm_slli_epi16(words, 4)), _mm_set1_epi8(15));
  const __m128i levels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(int4_levels.data()));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_shuffle_epi8(levels, codes)))};
}
inline void load_i4_apart(const void* p, Vec (&v)[4]) {
  const __m512 levels = _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(int4_levels.data()))));
  const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  const __m512i halves =
      _mm512_srlv_epi32(both, _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4));
  // A permutation takes the lower four bits of an index.
  v[0] = {_mm512_permutexvar_ps(halves, levels)};
  v[1] = {_mm512_permutexvar_ps(_mm512_srli_epi32(halves, 8), levels)};
  v[2] = {_mm512_permutexvar_ps(_mm512_srli_epi32(halves, 16), levels)};
  v[3] = {_mm512_permutexvar_ps(_mm512_srli_epi32(halves, 24), levels)};
}
inline Vec alternate_fours(float first, float second) {
  return {_mm512_mask_blend_ps(0xf0f0, _mm512_set1_ps(first), _mm512_set1_ps(second))};
}

struct Bytes {
  __m512i v;
};
inline Bytes load_bytes(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void store_bytes(void* p, const Bytes& line) { _mm512_storeu_si512(p, line.v); }
inline void widen_pairs(const Bytes& line, Vec& first, Vec& second) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  __m512i pairs = line.v;
  asm("" : "+v"(pairs));  // or they are loaded twice
  first = {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))};
  second = {_mm512_castsi512_ps(_mm512_and_si512(pairs, upper))};
}
inline Bytes join_pairs(Vec first, Vec second) {
  return {
      _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(first.v), 16), _mm512_castps_si512(second.v))};
}
inline void load_int4(const void* p, Bytes (&lines)[2]) {
  const __m512i pairs = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(15);
  const __m512i levels =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(int4_levels.data())));
  lines[0] = {_mm512_shuffle_epi8(levels, _mm512_and_si512(pairs, mask))};
  lines[1] = {_mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), mask))};
}
struct CodeTable {
  __m512i upper;
};
inline CodeTable load_code_table(const void* p) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
inline Bytes decode_upper(const Bytes& codes, int half, const CodeTable& table) {
  const __m512i code = half == 0 ? codes.v : _mm512_srli_epi16(codes.v, 4);
  return {_mm512_shuffle_epi8(table.upper, _mm512_and_si512(code, _mm512_set1_epi8(15)))};
}
inline Bytes replace_byte(const Bytes& line, int place, uint8_t value) {
  return {_mm512_mask_mov_epi8(line.v, uint64_t{1} << place, _mm512_set1_epi8(static_cast<char>(value)))};
}
inline void join_bytes(const Bytes& lower, const Bytes& upper, Bytes (&lines)[2]) {
  lines[0] = {_mm512_unpacklo_epi8(lower.v, upper.v)};
  lines[1] = {_mm512_unpackhi_epi8(lower.v, upper.v)};
}
template <int shift>
inline Vec byte_of(__m512i quads) {
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(quads, shift), 24))};
}
inline void widen(const Bytes& line, Vec (&inputs)[4]) {
  inputs[0] = byte_of<24>(line.v);
  inputs[1] = byte_of<16>(line.v);
  inputs[2] = byte_of<8>(line.v);
  inputs[3] = byte_of<0>(line.v);
}
// A byte b + 128 in the fraction of 2^15 is 2^15 + b + 128, from which one multiply-add makes b * scale
// without rounding.
inline void widen(const Bytes& line, Vec scale, Vec (&inputs)[4]) {
  const __m512i bytes = _mm512_xor_si512(line.v, _mm512_set1_epi32(static_cast<int>(0x80808080u)));
  const __m512 offset = _mm512_mul_ps(scale.v, _mm512_set1_ps(-32896.0f));
  auto widened = [&](__m512i second_byte) -> Vec {
    constexpr int and_or = 0xea;  // a & b | c
    const __m512i value = _mm512_ternarylogic_epi32(second_byte, _mm512_set1_epi32(0xff00),
                                                    _mm512_set1_epi32(0x47000000), and_or);
    return {_mm512_fmadd_ps(_mm512_castsi512_ps(value), scale.v, offset)};
  };
  inputs[0] = widened(_mm512_slli_epi32(bytes, 8));
  inputs[1] = widened(bytes);
  inputs[2] = widened(_mm512_srli_epi32(bytes, 8));
  inputs[3] = widened(_mm512_srli_epi32(bytes, 16));
}

inline float largest_magnitude(Vec a, Vec b) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a.v), mask),
                                        _mm512_and_si512(_mm512_castps_si512(b.v), mask));
  return std::bit_cast<float>(_mm512_reduce_max_epi32(bits));
}

inline void arrange_inputs(Vec inputs, std::byte* out) {
  __m512i x = _mm512_cvtps_epi32(inputs.v);
  if constexpr (bytes_of_inputs) {
    const __m512i above = _mm512_slli_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(128)), 16);
    x = _mm512_mask_blend_epi16(0xaaaaaaaau, x, above);
  }
  const __m128i order = _mm_loadu_si128(reinterpret_cast<const __m128i*>(quad_order.data()));
  x = _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(order));
  x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6), x);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(x));
}

inline __m512i broadcast_quad(const std::byte* p) { return _mm512_set1_epi32(quad_at(p)); }
#if RWKV_ISA >= RWKV_ISA_avx512vnni
// VNNI multiplies unsigned with signed bytes: inputs have two bytes, and integers come 128 too large, which
// makes sums too large by 128 times the sum of the inputs, the `excess`.
struct IntegerSums {
  __m512i high, low;
};
inline IntegerSums no_sums(int32_t excess) { return {_mm512_setzero_si512(), _mm512_set1_epi32(-excess)}; }
inline void add_products(IntegerSums& sums, const Bytes& line, const std::byte* input) {
  const __m512i q = _mm512_xor_si512(line.v, _mm512_set1_epi8(-128));
  sums.high = _mm512_dpbusd_epi32(sums.high, q, broadcast_quad(input));
  sums.low = _mm512_dpbusd_epi32(sums.low, q, broadcast_quad(input + 4));
}
inline Vec to_vec(const IntegerSums& sums) {
  return {_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(sums.high, 8), sums.low))};
}

#else
// Inputs 0 and 2 meet the integers in the lower bytes of 16-bit lanes, inputs 1 and 3 those in the upper
// ones.
struct IntegerSums {
  __m512i v;
};
inline IntegerSums no_sums(int32_t) { return {_mm512_setzero_si512()}; }
inline void add_products(IntegerSums& sums, const Bytes& line, const std::byte* input) {
  // The lower byte times one plus the upper byte times zero.
  const __m512i lower = _mm512_maddubs_epi16(_mm512_set1_epi16(1), line.v);
  sums.v = _mm512_add_epi32(sums.v, _mm512_madd_epi16(lower, broadcast_quad(input)));
  sums.v =
      _mm512_add_epi32(sums.v, _mm512_madd_epi16(_mm512_srai_epi16(line.v, 8), broadcast_quad(input + 4)));
}
inline Vec to_vec(const IntegerSums& sums) { return {_mm512_cvtepi32_ps(sums.v)}; }
#endif

}  // namespace rwkv::cpu::ISA
