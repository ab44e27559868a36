// Vec for AVX2, FMA and F16C: two registers of eight lanes. See vec_scalar.h for the contract.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels/prefetch.h"
#include "cpu/kernels/quads.h"
#include "ops/quantize.h"

namespace rwkv::cpu::ISA {

constexpr int64_t tile_tokens = 6;
constexpr int64_t tile_blocks = 1;

struct Vec {
  __m256 lo, hi;
};

inline Vec set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline __m256i part_mask(int64_t n, int first) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n) - first),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load_part(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, part_mask(n, 0)), _mm256_maskload_ps(p + 8, part_mask(n, 8))};
}
inline void store_part(float* p, Vec v, int64_t n) {
  _mm256_maskstore_ps(p, part_mask(n, 0), v.lo);
  _mm256_maskstore_ps(p + 8, part_mask(n, 8), v.hi);
}

inline Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec max_of(Vec limit, Vec x) { return {_mm256_max_ps(limit.lo, x.lo), _mm256_max_ps(limit.hi, x.hi)}; }
inline Vec min_of(Vec limit, Vec x) { return {_mm256_min_ps(limit.lo, x.lo), _mm256_min_ps(limit.hi, x.hi)}; }
inline Vec round_nearest(Vec a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
inline __m256 power_of_two(__m256 n) {
  __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Vec power_of_two(Vec n) { return {power_of_two(n.lo), power_of_two(n.hi)}; }
inline __m256 select_small(__m256 x, float limit, __m256 a, __m256 b) {
  __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(magnitude, _mm256_set1_ps(limit), _CMP_LT_OQ));
}
inline Vec select_small(Vec x, float limit, Vec a, Vec b) {
  return {select_small(x.lo, limit, a.lo, b.lo), select_small(x.hi, limit, a.hi, b.hi)};
}
inline uint32_t at_least(Vec x, float limit) {
  const __m256 limits = _mm256_set1_ps(limit);
  const auto mask = [&](__m256 half) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(half, limits, _CMP_GE_OQ)));
  };
  return mask(x.lo) | mask(x.hi) << 8;
}
inline uint32_t nonzero_lanes(Vec x) {
  const auto mask = [](__m256 half) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(half, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
  };
  return mask(x.lo) | mask(x.hi) << 8;
}
/// For each choice of eight lanes their numbers, one in a byte.
struct ChosenLanes {
  uint64_t of[256] = {};
  constexpr ChosenLanes() {
    for (uint64_t choice = 0; choice < 256; choice++) {
      for (uint64_t lane = 0, count = 0; lane < 8; lane++) {
        if ((choice >> lane & 1) != 0) of[choice] |= lane << 8 * count++;
      }
    }
  }
};
constexpr ChosenLanes chosen_lanes;
inline int64_t store_chosen(Vec x, uint32_t lanes, int64_t first, float* values, uint16_t* indices) {
  int64_t count = 0;
  for (int half = 0; half < 2; half++, first += 8) {
    const uint32_t choice = lanes >> 8 * half & 255;
    const __m128i numbers = _mm_cvtsi64_si128(static_cast<int64_t>(chosen_lanes.of[choice]));
    const __m256 chosen = _mm256_permutevar8x32_ps(half == 0 ? x.lo : x.hi, _mm256_cvtepu8_epi32(numbers));
    const __m128i index =
        _mm_add_epi16(_mm_cvtepu8_epi16(numbers), _mm_set1_epi16(static_cast<int16_t>(first)));
    _mm256_storeu_ps(values + count, chosen);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(indices + count), index);
    count += _mm_popcnt_u32(choice);
  }
  return count;
}
/// Eight rows become eight columns.
inline void transpose(__m256 (&v)[8]) {
  __m256 pairs[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    v[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    v[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    v[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    v[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    pairs[i] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20);
    pairs[i + 4] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
  }
  for (int i = 0; i < 8; i++) v[i] = pairs[i];
}
constexpr int most_columns = 8;
inline void store_columns(float* to, const Vec (&rows)[most_columns], int64_t count) {
  const float* end = to + 16 * count;
  for (int half = 0; half < 2; half++) {
    __m256 columns[8];
    for (int i = 0; i < 8; i++) columns[i] = half == 0 ? rows[i].lo : rows[i].hi;
    transpose(columns);
    for (int i = 0; i < 8; i++, to += count) {
      // What is written beyond a column is written again with the next one.
      to + 8 <= end ? _mm256_storeu_ps(to, columns[i])
                    : _mm256_maskstore_ps(to, part_mask(count, 0), columns[i]);
    }
  }
}
inline float sum(Vec v) {
  __m256 eight = _mm256_add_ps(v.lo, v.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline __m128i load_half_register(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline Vec load_f16(const void* p) {
  return {_mm256_cvtph_ps(load_half_register(p)),
          _mm256_cvtph_ps(load_half_register(static_cast<const char*>(p) + 16))};
}
inline __m256 widen_bf16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec load_bf16(const void* p) {
  return {widen_bf16(load_half_register(p)),
          widen_bf16(load_half_register(static_cast<const char*>(p) + 16))};
}
inline Vec load_i8(const void* p) {
  __m128i q = load_half_register(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}
inline __m256i bf16_bits(__m256 v) {
  __m256i bits = _mm256_castps_si256(v), upper = _mm256_srli_epi32(bits, 16);
  __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
inline Vec round_to_bf16(Vec v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(v.lo), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(v.hi), 16))};
}
inline void store_bf16(void* p, Vec v) {
  __m256i mixed = _mm256_packus_epi32(bf16_bits(v.lo), bf16_bits(v.hi));
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_permute4x64_epi64(mixed, 0xd8));
}
inline Vec load_i4(const void* p) {
  const __m128i words = _mm_cvtepu8_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  const __m128i codes = _mm_and_si128(_mm_or_si128(words, _mm_slli_epi16(words, 4)), _mm_set1_epi8(15));
  const __m128i q = _mm_shuffle_epi8(load_half_register(int4_levels.data()), codes);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}

struct Bytes {
  __m256i lo, hi;
};
inline Bytes load_bytes(const void* p) {
  const auto* half = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(half), _mm256_loadu_si256(half + 1)};
}
inline void store_bytes(void* p, const Bytes& line) {
  auto* half = static_cast<__m256i*>(p);
  _mm256_storeu_si256(half, line.lo);
  _mm256_storeu_si256(half + 1, line.hi);
}
inline void widen_pairs(const Bytes& line, Vec& first, Vec& second) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  __m256i lo = line.lo, hi = line.hi;
  asm("" : "+x"(lo), "+x"(hi));  // or they are loaded twice
  first = {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
  second = {_mm256_castsi256_ps(_mm256_and_si256(lo, upper)),
            _mm256_castsi256_ps(_mm256_and_si256(hi, upper))};
}
inline __m256i join_pairs(__m256 first, __m256 second) {
  return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(first), 16), _mm256_castps_si256(second));
}
inline Bytes join_pairs(Vec first, Vec second) {
  return {join_pairs(first.lo, second.lo), join_pairs(first.hi, second.hi)};
}
inline void load_int4(const void* p, Bytes (&lines)[2]) {
  const Bytes pairs = load_bytes(p);
  const __m256i levels = _mm256_broadcastsi128_si256(load_half_register(int4_levels.data()));
  const __m256i mask = _mm256_set1_epi8(15);
  auto lower = [&](__m256i v) { return _mm256_shuffle_epi8(levels, _mm256_and_si256(v, mask)); };
  lines[0] = {lower(pairs.lo), lower(pairs.hi)};
  lines[1] = {lower(_mm256_srli_epi16(pairs.lo, 4)), lower(_mm256_srli_epi16(pairs.hi, 4))};
}
struct CodeTable {
  __m256i upper;
};
inline CodeTable load_code_table(const void* p) {
  return {_mm256_broadcastsi128_si256(load_half_register(p))};
}
inline Bytes decode_upper(const Bytes& codes, int half, const CodeTable& table) {
  auto upper = [&](__m256i both) {
    const __m256i code = half == 0 ? both : _mm256_srli_epi16(both, 4);
    return _mm256_shuffle_epi8(table.upper, _mm256_and_si256(code, _mm256_set1_epi8(15)));
  };
  return {upper(codes.lo), upper(codes.hi)};
}
inline __m256i replace_byte(__m256i half, int place, uint8_t value) {
  const __m256i places =
      _mm256_setr_epi64x(0x0706050403020100, 0x0f0e0d0c0b0a0908, 0x1716151413121110, 0x1f1e1d1c1b1a1918);
  const __m256i here = _mm256_cmpeq_epi8(places, _mm256_set1_epi8(static_cast<char>(place)));
  return _mm256_blendv_epi8(half, _mm256_set1_epi8(static_cast<char>(value)), here);
}
inline Bytes replace_byte(const Bytes& line, int place, uint8_t value) {
  return {replace_byte(line.lo, place, value), replace_byte(line.hi, place - 32, value)};
}
inline void join_bytes(const Bytes& lower, const Bytes& upper, Bytes (&lines)[2]) {
  lines[0] = {_mm256_unpacklo_epi8(lower.lo, upper.lo), _mm256_unpacklo_epi8(lower.hi, upper.hi)};
  lines[1] = {_mm256_unpackhi_epi8(lower.lo, upper.lo), _mm256_unpackhi_epi8(lower.hi, upper.hi)};
}
template <int shift>
inline __m256 byte_of(__m256i quads) {
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quads, shift), 24));
}
inline void load_i4_apart(const void* p, Vec (&v)[4]) {
  const __m256i bytes = _mm256_loadu_si256(static_cast<const __m256i*>(p)), mask = _mm256_set1_epi8(15);
  const __m256i levels = _mm256_broadcastsi128_si256(load_half_register(int4_levels.data()));
  const __m256i even = _mm256_shuffle_epi8(levels, _mm256_and_si256(bytes, mask));
  const __m256i odd = _mm256_shuffle_epi8(levels, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask));
  v[0] = {byte_of<24>(even), byte_of<24>(odd)};
  v[1] = {byte_of<16>(even), byte_of<16>(odd)};
  v[2] = {byte_of<8>(even), byte_of<8>(odd)};
  v[3] = {byte_of<0>(even), byte_of<0>(odd)};
}
inline Vec alternate_fours(float first, float second) {
  const __m256 both = _mm256_blend_ps(_mm256_set1_ps(first), _mm256_set1_ps(second), 0xf0);
  return {both, both};
}
inline void widen(const Bytes& line, Vec (&inputs)[4]) {
  inputs[0] = {byte_of<24>(line.lo), byte_of<24>(line.hi)};
  inputs[1] = {byte_of<16>(line.lo), byte_of<16>(line.hi)};
  inputs[2] = {byte_of<8>(line.lo), byte_of<8>(line.hi)};
  inputs[3] = {byte_of<0>(line.lo), byte_of<0>(line.hi)};
}
inline void widen(const Bytes& line, Vec scale, Vec (&inputs)[4]) {
  widen(line, inputs);
  for (Vec& v : inputs) v = mul(v, scale);
}

inline __m256i largest_bits(Vec v) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  return _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(v.lo), mask),
                          _mm256_and_si256(_mm256_castps_si256(v.hi), mask));
}
inline float largest_magnitude(Vec a, Vec b) {
  const __m256i eight = _mm256_max_epi32(largest_bits(a), largest_bits(b));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

inline void arrange_inputs(__m256 inputs, std::byte* out) {
  __m256i x = _mm256_cvtps_epi32(inputs);
  if constexpr (bytes_of_inputs) {
    const __m256i above = _mm256_slli_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(128)), 16);
    x = _mm256_blend_epi16(x, above, 0xaa);
  }
  x = _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(load_half_register(quad_order.data())));
  x = _mm256_permute4x64_epi64(x, 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(x));
}
inline void arrange_inputs(Vec inputs, std::byte* out) {
  arrange_inputs(inputs.lo, out);
  arrange_inputs(inputs.hi, out + 16);
}

inline __m256i broadcast_quad(const std::byte* p) { return _mm256_set1_epi32(quad_at(p)); }
#if RWKV_ISA == RWKV_ISA_avxvnni
// As with AVX-512: inputs have two bytes, and integers come 128 too large, which makes sums too large by the
// excess.
struct IntegerSums {
  __m256i high[2], low[2];
};
inline IntegerSums no_sums(int32_t excess) {
  const __m256i zero = _mm256_setzero_si256(), less = _mm256_set1_epi32(-excess);
  return {{zero, zero}, {less, less}};
}
inline void add_products(IntegerSums& sums, const Bytes& line, const std::byte* input) {
  const __m256i high = broadcast_quad(input), low = broadcast_quad(input + 4);
  for (int half = 0; half < 2; half++) {
    const __m256i q = _mm256_xor_si256(half == 0 ? line.lo : line.hi, _mm256_set1_epi8(-128));
    sums.high[half] = _mm256_dpbusd_avx_epi32(sums.high[half], q, high);
    sums.low[half] = _mm256_dpbusd_avx_epi32(sums.low[half], q, low);
  }
}
inline Vec to_vec(const IntegerSums& sums) {
  auto join = [&](int half) {
    return _mm256_add_epi32(_mm256_slli_epi32(sums.high[half], 8), sums.low[half]);
  };
  return {_mm256_cvtepi32_ps(join(0)), _mm256_cvtepi32_ps(join(1))};
}
#else
// Inputs 0 and 2 meet the integers in the lower bytes of 16-bit lanes, inputs 1 and 3 those in the upper
// ones.
struct IntegerSums {
  __m256i lo, hi;
};
inline IntegerSums no_sums(int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline void add_products(IntegerSums& sums, const Bytes& line, const std::byte* input) {
  const __m256i even = broadcast_quad(input), odd = broadcast_quad(input + 4);
  const __m256i lower_byte = _mm256_set1_epi16(1);  // times one plus the upper byte times zero
  auto products = [&](__m256i sum, __m256i q) {
    const __m256i lower = _mm256_maddubs_epi16(lower_byte, q), upper = _mm256_srai_epi16(q, 8);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(lower, even));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(upper, odd));
    asm("" : "+x"(sum));  // or products wait in memory to be added later
    return sum;
  };
  sums.lo = products(sums.lo, line.lo);
  sums.hi = products(sums.hi, line.hi);
}
inline Vec to_vec(const IntegerSums& sums) {
  return {_mm256_cvtepi32_ps(sums.lo), _mm256_cvtepi32_ps(sums.hi)};
}
#endif

}  // namespace rwkv::cpu::ISA
