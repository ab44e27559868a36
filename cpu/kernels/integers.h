// Inputs of several tokens and blocks of weights as 16-bit integers, for VNNI, which adds the products of two
// pairs of them at once.
//
// Sixty-four inputs have one scale, of each token and of each output; a sum over them does not round, and is
// scaled and added up in fp32. Inputs have 13 bits and a sign, which loses at most 1 / 16382 of the largest
// one (rounded to bf16 they would lose up to 1 / 512 of each), weights 12 bits and a sign:
//   bf16        Their scale is a power of two: nothing is lost of those that are more than a sixteenth of the
//               largest one, and of smaller ones at most 1 / 4096 of it.
//   int8, int4  Of their two scales, for 32 inputs each, the larger one is split in 32: nothing is lost of
//               weights that have it, and of the others at most 1 / 50 of it.
//
// Of ffn.value (rows_panel.h) a part of 256 inputs has one scale, for bf16, int8 and int4: weights have 14
// bits and a sign, inputs as many as their sum of magnitudes, of 17 bits, leaves.
//
// For 64 inputs a group of tokens has its scales, in integer_sum_unit, then pairs [32][tokens]. A block in a
// panel has pairs [inputs / 2][16], then scales [inputs / 64][16].
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/kernels/integer_pairs.h"

namespace rwkv::cpu::ISA {

/// Several tokens multiply with int8, int4 and bf16 blocks so.
constexpr bool integer_products = RWKV_INTEGER_PRODUCTS;

/// Bits of weights before the sign; in rows.
constexpr int weight_bits = 12, row_weight_bits = 14;

constexpr int64_t integer_group = 64;  ///< inputs that share a scale
static_assert(integer_group == step_inputs && integer_group == 2 * scale_group);
constexpr int64_t integer_group_lines = integer_group / 2;

namespace {

/// Of a token among several that come in groups: so many inputs, a multiple of 64.
inline int64_t grouped_bytes(Operand operand, int64_t inputs) {
  if (operand == Operand::several_integers) return inputs * 2 + inputs / integer_group * 4;
  return inputs * (is_bf16(operand) ? 2 : 4);
}

#if RWKV_INTEGER_PRODUCTS

/// A step of int8 or int4: pairs to `lines`, scales to `scales`.
template <DType type>
void make_integer_step(const std::byte* step, std::byte* lines, std::byte* scales) {
  const Vec scale[2] = {load_bf16(step), load_bf16(step + block_outputs * 2)};
  Vec larger = set1(0);
  for (const Vec& v : scale) larger = max_of(larger, max_of(v, sub(set1(0), v)));
  Bytes factors[2];
  for (int half = 0; half < 2; half++) {
    const Vec factor = mul(div(scale[half], larger), set1(1 << 14));
    factors[half] = integer_pairs(factor, factor);  // of 0 / 0 zero
  }
  for (int64_t pair = 0; pair < 8; pair++) {
    Bytes bytes[2];
    load_lines<type>(
        pair, [step](int64_t offset) { return step + offset; }, bytes);
    for (const Bytes& line : bytes) {
      Bytes pairs[2];
      widen_to_pairs(line, pairs);
      for (const Bytes& of_two : pairs) {
        store_bytes(lines, mul_high(of_two, factors[pair / 4]));
        lines += line_bytes;
      }
    }
  }
  store(reinterpret_cast<float*>(scales), mul(larger, set1(1.0f / 32)));
}

/// Inputs from `first` on, multiples of 64.
template <DType type>
void make_integer_block(const std::byte* block, int64_t first, int64_t inputs, std::byte* to) {
  std::byte* scales = to + inputs / 2 * line_bytes;
  for (int64_t i = 0; i < inputs; i += integer_group, scales += line_bytes)
    make_integer_step<type>(block + (first + i) / step_inputs * step_bytes(type), to + i / 2 * line_bytes,
                            scales);
}

/// So many lines of bf16 pairs, from where they are or in place, with zeros behind those that there are:
/// what shares a scale.
inline void round_to_integers(const std::byte* from, int64_t count, std::byte* lines, std::byte* scales) {
  Bytes largest{};
  for (int64_t i = 0; i < count; i++) largest = larger_bf16(largest, load_bytes(from + i * line_bytes));
  Vec inverse, scale;
  scales_of(larger_of_pairs(largest), weight_bits, inverse, scale);
  for (int64_t i = 0; i < count; i++) {
    Vec first, second;
    widen_pairs(load_bytes(from + i * line_bytes), first, second);
    store_bytes(lines + i * line_bytes, integer_pairs(mul(first, inverse), mul(second, inverse)));
  }
  for (int64_t i = count; i < integer_group_lines; i++) store_bytes(lines + i * line_bytes, Bytes{});
  store(reinterpret_cast<float*>(scales), scale);
}

/// From lines of bf16 pairs, of which there are `count`; inputs: a multiple of 64 with all of them.
inline void make_bf16_block(const std::byte* from, int64_t count, int64_t inputs, std::byte* to) {
  std::byte* scales = to + inputs / 2 * line_bytes;
  for (int64_t line = 0; line < inputs / 2; line += integer_group_lines, scales += line_bytes) {
    round_to_integers(from + line * line_bytes, std::clamp<int64_t>(count - line, 0, integer_group_lines),
                      to + line * line_bytes, scales);
  }
}

#endif

}  // namespace
}  // namespace rwkv::cpu::ISA
