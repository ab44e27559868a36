// Products of pairs of 16-bit integers, for the sets whose several tokens multiply so (integers.h).
#pragma once

#include "cpu/kernels/operand.h"

#if RWKV_INTEGER_PRODUCTS
namespace rwkv::cpu::ISA {
namespace {

// For both:
// PairSums                      sums, for 16 outputs, of products of pairs
// integer_words(first, second)  thirty-two neighbouring numbers, rounded
// integer_pairs(first, second)  sixteen pairs, rounded: first[i] and second[i]
// integer_line(first, second)   two times sixteen, rounded, in the order from which
// pair_lines(a, b, first, second)  makes pairs of two such lines: for the first sixteen, and for the second
// widen_to_pairs(line, pairs)   a line of int8, four inputs of 16 outputs, times 64, as two of pairs
// mul_high(pairs, factors)      their product / 2^15, rounded
// larger_bf16(largest, line)    the larger magnitude, of each of a line's bf16
// larger_of_pairs(line)         the larger one of each pair of such magnitudes
// scales_of(largest, bits, inverse, scale)
//   powers of two: a magnitude times inverse has so many bits before the point (fewer below 2^-113), and
//   scale is one over it, or NaN where the magnitude is not finite

#if RWKV_ISA == RWKV_ISA_avxvnni
struct PairSums {
  __m256i lo, hi;
};
inline PairSums no_pair_sums() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Bytes broadcast_pair(const std::byte* pair) { return {broadcast_quad(pair), broadcast_quad(pair)}; }
// Not by the intrinsic: vec_avx512.h.
inline PairSums add_products(PairSums sums, const Bytes& x, const Bytes& line) {
  asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sums.lo) : "x"(x.lo), "x"(line.lo));
  asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sums.hi) : "x"(x.hi), "x"(line.hi));
  return sums;
}
inline Vec to_vec(PairSums sums) { return {_mm256_cvtepi32_ps(sums.lo), _mm256_cvtepi32_ps(sums.hi)}; }

inline __m256 integer_words(Vec numbers) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(numbers.lo), _mm256_cvtps_epi32(numbers.hi));
  return _mm256_castsi256_ps(_mm256_permute4x64_epi64(packed, 0xd8));
}
inline Vec integer_words(Vec first, Vec second) { return {integer_words(first), integer_words(second)}; }
inline __m256i join_words(__m256i lower, __m256i upper) { return _mm256_blend_epi16(lower, upper, 0xaa); }
inline __m256i integer_pairs(__m256 first, __m256 second) {
  return join_words(_mm256_cvtps_epi32(first), _mm256_slli_epi32(_mm256_cvtps_epi32(second), 16));
}
inline Bytes integer_pairs(Vec first, Vec second) {
  return {integer_pairs(first.lo, second.lo), integer_pairs(first.hi, second.hi)};
}
inline void widen_to_pairs(__m256i line, __m256i& first, __m256i& second) {
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(line, 8), 2);
  const __m256i odd = _mm256_srai_epi16(_mm256_and_si256(line, _mm256_set1_epi16(-256)), 2);
  first = join_words(even, _mm256_slli_epi32(odd, 16));
  second = join_words(_mm256_srli_epi32(even, 16), odd);
}
inline void widen_to_pairs(const Bytes& line, Bytes (&pairs)[2]) {
  widen_to_pairs(line.lo, pairs[0].lo, pairs[1].lo);
  widen_to_pairs(line.hi, pairs[0].hi, pairs[1].hi);
}
inline Bytes mul_high(const Bytes& pairs, const Bytes& factors) {
  return {_mm256_mulhrs_epi16(pairs.lo, factors.lo), _mm256_mulhrs_epi16(pairs.hi, factors.hi)};
}
inline Bytes larger_bf16(const Bytes& largest, const Bytes& line) {
  const __m256i mask = _mm256_set1_epi16(0x7fff);
  return {_mm256_max_epu16(largest.lo, _mm256_and_si256(line.lo, mask)),
          _mm256_max_epu16(largest.hi, _mm256_and_si256(line.hi, mask))};
}
inline __m256 larger_of_pairs(__m256i pairs) {
  const __m256i larger = _mm256_max_epu16(pairs, _mm256_slli_epi32(pairs, 16));
  return _mm256_castsi256_ps(_mm256_and_si256(larger, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Vec larger_of_pairs(const Bytes& line) { return {larger_of_pairs(line.lo), larger_of_pairs(line.hi)}; }
inline void scales_of(__m256 largest, int bits, __m256& inverse, __m256& scale) {
  const __m256i exponents =
      _mm256_max_epi32(_mm256_srli_epi32(_mm256_castps_si256(largest), 23), _mm256_set1_epi32(bits));
  inverse =
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(253 + bits), exponents), 23));
  const __m256i above = _mm256_sub_epi32(exponents, _mm256_set1_epi32(bits - 1));
  const __m256i infinite = _mm256_cmpeq_epi32(exponents, _mm256_set1_epi32(255));
  scale = _mm256_castsi256_ps(
      _mm256_blendv_epi8(_mm256_slli_epi32(above, 23), _mm256_set1_epi32(0x7fc00000), infinite));
}
inline void scales_of(Vec largest, int bits, Vec& inverse, Vec& scale) {
  scales_of(largest.lo, bits, inverse.lo, scale.lo);
  scales_of(largest.hi, bits, inverse.hi, scale.hi);
}
inline Bytes integer_line(Vec first, Vec second) {
  return {_mm256_packs_epi32(_mm256_cvtps_epi32(first.lo), _mm256_cvtps_epi32(second.lo)),
          _mm256_packs_epi32(_mm256_cvtps_epi32(first.hi), _mm256_cvtps_epi32(second.hi))};
}
inline void pair_lines(const Bytes& a, const Bytes& b, Bytes& first, Bytes& second) {
  __m256i lo = b.lo, hi = b.hi;
  asm("" : "+x"(lo), "+x"(hi));  // or they are loaded twice
  first = {_mm256_unpacklo_epi16(a.lo, lo), _mm256_unpacklo_epi16(a.hi, hi)};
  second = {_mm256_unpackhi_epi16(a.lo, lo), _mm256_unpackhi_epi16(a.hi, hi)};
}

#else
struct PairSums {
  __m512i v;
};
inline PairSums no_pair_sums() { return {_mm512_setzero_si512()}; }
inline Bytes broadcast_pair(const std::byte* pair) { return {broadcast_quad(pair)}; }
inline PairSums add_products(PairSums sums, const Bytes& x, const Bytes& line) {
  // The intrinsic costs copies of the sums, some to memory: g++ 12 does not let it add in place.
  asm("vpdpwssd %2, %1, %0" : "+v"(sums.v) : "v"(x.v), "v"(line.v));
  return sums;
}
inline Vec to_vec(PairSums sums) { return {_mm512_cvtepi32_ps(sums.v)}; }

inline Vec integer_words(Vec first, Vec second) {
  const __m512i packed = _mm512_packs_epi32(_mm512_cvtps_epi32(first.v), _mm512_cvtps_epi32(second.v));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  return {_mm512_castsi512_ps(_mm512_permutexvar_epi64(order, packed))};
}
inline __m512i join_words(__m512i lower, __m512i upper) {
  return _mm512_mask_blend_epi16(0xaaaaaaaau, lower, upper);
}
inline Bytes integer_pairs(Vec first, Vec second) {
  return {join_words(_mm512_cvtps_epi32(first.v), _mm512_slli_epi32(_mm512_cvtps_epi32(second.v), 16))};
}
inline void widen_to_pairs(const Bytes& line, Bytes (&pairs)[2]) {
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(line.v, 8), 2);
  const __m512i odd = _mm512_srai_epi16(_mm512_and_si512(line.v, _mm512_set1_epi16(-256)), 2);
  pairs[0] = {join_words(even, _mm512_slli_epi32(odd, 16))};
  pairs[1] = {join_words(_mm512_srli_epi32(even, 16), odd)};
}
inline Bytes mul_high(const Bytes& pairs, const Bytes& factors) {
  return {_mm512_mulhrs_epi16(pairs.v, factors.v)};
}
inline Bytes larger_bf16(const Bytes& largest, const Bytes& line) {
  return {_mm512_max_epu16(largest.v, _mm512_and_si512(line.v, _mm512_set1_epi16(0x7fff)))};
}
inline Vec larger_of_pairs(const Bytes& line) {
  const __m512i larger = _mm512_max_epu16(line.v, _mm512_slli_epi32(line.v, 16));
  return {_mm512_castsi512_ps(_mm512_and_si512(larger, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline void scales_of(Vec largest, int bits, Vec& inverse, Vec& scale) {
  const __m512i exponents =
      _mm512_max_epi32(_mm512_srli_epi32(_mm512_castps_si512(largest.v), 23), _mm512_set1_epi32(bits));
  const __mmask16 infinite = _mm512_cmpeq_epi32_mask(exponents, _mm512_set1_epi32(255));
  inverse.v =
      _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(253 + bits), exponents), 23));
  const __m512i above = _mm512_sub_epi32(exponents, _mm512_set1_epi32(bits - 1));
  scale.v = _mm512_castsi512_ps(
      _mm512_mask_mov_epi32(_mm512_slli_epi32(above, 23), infinite, _mm512_set1_epi32(0x7fc00000)));
}
inline Bytes integer_line(Vec first, Vec second) {
  return {_mm512_packs_epi32(_mm512_cvtps_epi32(first.v), _mm512_cvtps_epi32(second.v))};
}
inline void pair_lines(const Bytes& a, const Bytes& b, Bytes& first, Bytes& second) {
  __m512i left = a.v, right = b.v;
  asm("" : "+v"(left), "+v"(right));  // or they are loaded twice
  first = {_mm512_unpacklo_epi16(left, right)};
  second = {_mm512_unpackhi_epi16(left, right)};
}

#endif

}  // namespace
}  // namespace rwkv::cpu::ISA
#endif
