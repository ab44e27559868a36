// Vec for AVX-512 F, BW, VL, DQ: one register. See vec_scalar.h for the contract.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace rwkv::cpu::ISA {

constexpr int64_t tile_tokens = 12;
constexpr int row_vectors = 16;
constexpr int64_t tile_blocks = 2;

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
inline void store_bf16(void* p, Vec v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bf16_bits(v.v)));
}
#if RWKV_ISA >= RWKV_ISA_avx512bf16
/// Sixteen pairs, rounded: first[i] and second[i].
inline void store_bf16_pairs(void* p, Vec first, Vec second) {
  const auto apart = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i order =
      _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x10001)), _mm512_set1_epi32(0x100000));
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, apart));
}
#endif
inline void load_bf16_pairs(const void* p, Vec& first, Vec& second) {
  __m512i line = _mm512_loadu_si512(p);
  first = {_mm512_castsi512_ps(_mm512_slli_epi32(line, 16))};
  second = {_mm512_castsi512_ps(_mm512_and_si512(line, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
template <int shift>
inline Vec byte_of(__m512i quads) {
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(quads, shift), 24))};
}
inline void load_i8_quads(const void* p, Vec (&inputs)[4]) {
  __m512i line = _mm512_loadu_si512(p);
  inputs[0] = byte_of<24>(line);
  inputs[1] = byte_of<16>(line);
  inputs[2] = byte_of<8>(line);
  inputs[3] = byte_of<0>(line);
}
/// The same times a scale of at most 8 significant bits. A byte b + 128 in the fraction of 2^15 is 2^15 + b +
/// 128, from which one multiply-add makes b * scale without rounding.
inline void load_scaled_quads(const void* p, Vec scale, Vec (&inputs)[4]) {
  const __m512i bytes =
      _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0x80808080u)));
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
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace rwkv::cpu::ISA
