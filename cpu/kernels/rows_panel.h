// Panels of rows: a part of the inputs, some neighbouring outputs of each, from input_rows weights of any
// type, widened to fp32, as bf16 or as integers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/kernels/integers.h"
#include "cpu/kernels/nonzero.h"
#include "cpu/kernels/panel.h"

namespace rwkv::cpu::ISA {

constexpr int64_t rows_panel_bytes = 64 << 10;
constexpr int64_t widest_rows_panel = rows_panel_bytes / part_inputs / 2;  ///< outputs
constexpr int64_t rows_scales_bytes = part_inputs * widest_rows_panel / scale_group * 4;

namespace {

struct F32RowsPanel {
  static constexpr int64_t row_bytes = rows_panel_bytes / part_inputs, outputs = row_bytes / 4;
  static constexpr int vectors = outputs / 16;

  /// These inputs' weights of so many vectors of outputs.
  template <int count>
  static void make(const Rows& rows, Range part, int64_t output, std::byte* panel) {
    for (int64_t i = part.begin; i < part.end; i++, panel += row_bytes) {
      for (int v = 0; v < count; v++)
        store(reinterpret_cast<float*>(panel) + v * 16, rows.row_or_zero(rows.at(i), output + v * 16));
    }
  }

  /// sums += the rows of these inputs times their values.
  template <int count>
  static void add(const std::byte* panel, const NonzeroInputs& x, Vec (&sums)[count]) {
    const auto* values = reinterpret_cast<const float*>(x.values);
    for (int64_t i = 0; i < x.count; i++) {
      const auto* row = reinterpret_cast<const float*>(panel + x.places[i] * row_bytes);
      const Vec value = set1(values[i]);
#pragma GCC unroll 4
      for (int v = 0; v < count; v++) sums[v] = fma(load(row + v * 16), value, sums[v]);
    }
  }
};

/// Weights that bf16 holds exactly, or integers (`scaled`), whose scales lie behind the panel: half of the
/// bytes of fp32. A line has 32 outputs, those that share a scale, and a shift and an `and` widen it.
template <bool scaled>
struct PairRowsPanel {
  static constexpr int64_t outputs = RWKV_ISA >= RWKV_ISA_avx512 ? widest_rows_panel : widest_rows_panel / 2;
  static constexpr int64_t row_bytes = outputs * 2, row_lines = row_bytes / line_bytes;
  static constexpr int vectors = outputs / 16;
  static_assert(scale_group == 32);

  template <int count>
  static void make(const Rows& rows, Range part, int64_t output, std::byte* panel) {
    for (int64_t i = part.begin; i < part.end; i++) {
      const std::byte* row = rows.at(i);
      for (int64_t v = 0, line = (i - part.begin) * row_lines; v < count; v += 2, line++) {
        const int64_t here = output + v * 16;
        store_bytes(panel + line * line_bytes,
                    join_pairs(weights(rows, row, here), weights(rows, row, here + 16)));
        if constexpr (scaled) {
          const float scale = here < rows.m.outputs ? row_scale(row, here) : 0;
          std::memcpy(panel + rows_panel_bytes + line * 4, &scale, sizeof scale);
        }
      }
    }
  }

  template <int count>
  static void add(const std::byte* panel, const NonzeroInputs& x, Vec (&sums)[count]) {
    const auto* values = reinterpret_cast<const float*>(x.values);
    const auto* scales = reinterpret_cast<const float*>(panel + rows_panel_bytes);
    for (int64_t i = 0; i < x.count; i++) {
      const int64_t line = x.places[i] * row_lines;
      const Vec value = set1(values[i]);
#pragma GCC unroll 4
      for (int v = 0; v < count; v += 2) {
        const Vec factor = scaled ? mul(value, set1(scales[line + v / 2])) : value;
        Vec first, second;
        widen_pairs(load_bytes(panel + line * line_bytes + v * 32), first, second);
        sums[v] = fma(first, factor, sums[v]);
        sums[v + 1] = fma(second, factor, sums[v + 1]);
      }
    }
  }

 private:
  static Vec weights(const Rows& rows, const std::byte* row, int64_t output) {
    if (output >= rows.m.outputs) return set1(0);
    return scaled ? rows.integers(row, output) : rows.row(row, output);
  }
};

#if RWKV_ISA >= RWKV_ISA_avx512bf16
/// Two inputs are added at once: their rows' lines, unpacked, are the pairs of 2 x 16 outputs, for which
/// lines lie with outputs 0 to 3, 16 to 19, 4 to 7 and so on.
struct BF16RowsPanel {
  static constexpr int64_t row_bytes = rows_panel_bytes / part_inputs, outputs = row_bytes / 2;
  static constexpr int vectors = outputs / 16;

  template <int count>
  static void make(const Rows& rows, Range part, int64_t output, std::byte* panel) {
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    for (int64_t i = part.begin; i < part.end; i++, panel += row_bytes) {
      for (int v = 0; v < count; v += 2)
        _mm512_storeu_si512(panel + v * 32,
                            _mm512_permutexvar_epi64(order, line_of(rows, rows.at(i), output + v * 16)));
    }
  }

  template <int count>
  static void add(const std::byte* panel, const NonzeroInputs& x, Vec (&sums)[count]) {
    int64_t i = 0;
    for (; i + 2 <= x.count; i += 2) add_inputs<true>(panel, x, i, sums);
    if (i < x.count) add_inputs<false>(panel, x, i, sums);
  }

 private:
  static __m512i line_of(const Rows& rows, const std::byte* row, int64_t output) {
    if (output >= rows.m.outputs) return _mm512_setzero_si512();
    if (rows.m.dtype == DType::bf16) return _mm512_loadu_si512(row + output * 2);
    return reinterpret_cast<__m512i>(bf16_words(rows.row(row, output), rows.row_or_zero(row, output + 16)).v);
  }

  template <bool two, int count>
  static void add_inputs(const std::byte* panel, const NonzeroInputs& x, int64_t i, Vec (&sums)[count]) {
    int32_t pair = 0;
    std::memcpy(&pair, x.values + 2 * i, two ? 4 : 2);
    const auto values = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    const std::byte* first = panel + x.places[i] * row_bytes;
    const std::byte* second = two ? panel + x.places[i + 1] * row_bytes : nullptr;
#pragma GCC unroll 4
    for (int v = 0; v < count; v += 2) {
      __m512i a = _mm512_loadu_si512(first + v * 32);
      __m512i b = two ? _mm512_loadu_si512(second + v * 32) : _mm512_setzero_si512();
      asm("" : "+v"(a), "+v"(b));  // or they are loaded twice, and loads are what takes the time
      const auto lower = reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(a, b));
      const auto upper = reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(a, b));
      sums[v].v = _mm512_dpbf16_ps(sums[v].v, lower, values);
      sums[v + 1].v = _mm512_dpbf16_ps(sums[v + 1].v, upper, values);
    }
  }
};
#endif

#if RWKV_INTEGER_PRODUCTS
/// 16-bit integers, from bf16 or int8 and int4: an output has a power of two as scale for the inputs of the
/// part. Two inputs are added at once.
struct IntegerRowsPanel {
  static constexpr int64_t outputs = RWKV_ISA == RWKV_ISA_avxvnni ? widest_rows_panel / 2 : widest_rows_panel;
  static constexpr int64_t row_bytes = outputs * 2;
  static constexpr int vectors = outputs / 16;

  template <int count>
  static void make(const Rows& rows, Range part, int64_t output, std::byte* panel) {
    Vec inverse[count];
    find_scales<count>(rows, part, output, inverse, reinterpret_cast<float*>(panel + rows_panel_bytes));
    for (int64_t i = part.begin; i < part.end; i++, panel += row_bytes) {
      const std::byte* row = rows.at(i);
#pragma GCC unroll 4
      for (int v = 0; v < count; v += 2) {
        store_bytes(panel + v * 32,
                    integer_line(mul(rows.row_or_zero(row, output + v * 16), inverse[v]),
                                 mul(rows.row_or_zero(row, output + v * 16 + 16), inverse[v + 1])));
      }
    }
  }

  template <int count>
  static void add(const std::byte* panel, const NonzeroInputs& x, Vec (&sums)[count]) {
    PairSums acc[count];
#pragma GCC unroll 8
    for (PairSums& a : acc) a = no_pair_sums();
    for (int64_t i = 0; i < x.count; i += 2) {
      const std::byte *a = panel + x.places[i] * row_bytes, *b = panel + x.places[i + 1] * row_bytes;
      const Bytes values = broadcast_pair(x.values + 2 * i);
#pragma GCC unroll 4
      for (int v = 0; v < count; v += 2) {
        Bytes first, second;
        pair_lines(load_bytes(a + v * 32), load_bytes(b + v * 32), first, second);
        acc[v] = add_products(acc[v], values, first);
        acc[v + 1] = add_products(acc[v + 1], values, second);
      }
    }
    const auto* scales = reinterpret_cast<const float*>(panel + rows_panel_bytes);
#pragma GCC unroll 8
    for (int v = 0; v < count; v++)
      sums[v] = fma(load(scales + v * 16), mul(to_vec(acc[v]), set1(x.scale)), sums[v]);
  }

 private:
  template <int count>
  static void find_scales(const Rows& rows, Range part, int64_t output, Vec (&inverse)[count],
                          float* scales) {
    Vec largest[count];
    for (Vec& magnitudes : largest) magnitudes = set1(0);
    rows.m.dtype == DType::bf16 ? find_largest(rows, part, output, largest)
                                : find_bounds(rows, part, output, largest);
    for (int v = 0; v < count; v++, scales += 16) {
      Vec scale;
      scales_of(largest[v], row_weight_bits, inverse[v], scale);
      store(scales, scale);
    }
  }
  template <int count>
  static void find_largest(const Rows& rows, Range part, int64_t output, Vec (&largest)[count]) {
    Bytes lines[count / 2] = {};
    int64_t offsets[count / 2];  // what is not there is not read
    for (int64_t line = 0; line < count / 2; line++)
      offsets[line] = 2 * (output + line * 32 < rows.m.outputs ? output + line * 32 : output);
    for (int64_t i = part.begin; i < part.end; i++) {
#pragma GCC unroll 4
      for (int line = 0; line < count / 2; line++)
        lines[line] = larger_bf16(lines[line], load_bytes(rows.at(i) + offsets[line]));
    }
    for (int line = 0; line < count / 2; line++) {
      std::byte magnitudes[line_bytes];
      store_bytes(magnitudes, lines[line]);
      for (int half = 0; half < 2; half++) largest[line * 2 + half] = load_bf16(magnitudes + half * 32);
    }
  }
  /// From scales alone: integers are at most 128.
  template <int count>
  static void find_bounds(const Rows& rows, Range part, int64_t output, Vec (&bounds)[count]) {
    for (int v = 0; v < count; v += 2, output += 32) {
      if (output >= rows.m.outputs) return;
      float largest = 0;
      for (int64_t i = part.begin; i < part.end; i++)
        largest = std::max(largest, std::abs(row_scale(rows.at(i), output)));
      bounds[v] = bounds[v + 1] = set1(128 * largest);
    }
  }
};
#endif

}  // namespace
}  // namespace rwkv::cpu::ISA
