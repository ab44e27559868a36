// Inputs of several tokens and blocks of weights as 16-bit integers, for VNNI, which adds the products of two
// pairs of them at once.
//
// Integers of a group of inputs have one scale, of each token and of each output; sums over a group do not
// round, and are scaled and added up in fp32.
//   int8, int4  groups of 32. Inputs are what they are for one token, sums have the order that they have for
//               one token, and so the bits are the same, too.
//   bf16        groups of 64. Inputs have 14 bits and a sign, which loses at most 1 / 32766 of the largest
//               one; rounded to bf16 they would lose up to 1 / 512 of each. Weights have 11 bits and a sign,
//               and for their scale a power of two: nothing is lost of those that are more than an eighth
//               of the largest one, and of smaller ones at most 1 / 2048 of it. Sums have 31 bits.
//
// Of ffn.value (rows_panel.h) a part of 256 inputs has one scale, for bf16, int8 and int4: weights have 14
// bits and a sign, inputs as many as their sum of magnitudes, of 17 bits, leaves.
//
// For a group of inputs a group of tokens has its scales, in integer_sum_unit, then pairs [group /
// 2][tokens]. A block in a panel has pairs [inputs / 2][16], then scales [inputs / group][16].
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/kernels/integer_pairs.h"

namespace rwkv::cpu::ISA {

/// Several tokens multiply with int8, int4 and bf16 blocks so.
constexpr bool integer_products = RWKV_INTEGER_PRODUCTS;

/// Bits of bf16 weights before the sign, and of weights of any type in rows.
constexpr int weight_bits = 11, row_weight_bits = 14;

/// Inputs that share a scale.
constexpr int64_t inputs_of_scale(Operand operand) {
  return operand == Operand::wide_integers ? 2 * scale_group : scale_group;
}
constexpr bool is_integer(Operand operand) {
  return operand == Operand::integers || operand == Operand::wide_integers;
}

namespace {

/// Of a token among several that come in groups: so many inputs, a multiple of 64.
inline int64_t grouped_bytes(Operand operand, int64_t inputs) {
  if (is_integer(operand)) return inputs * 2 + inputs / inputs_of_scale(operand) * 4;
  return inputs * (is_bf16(operand) ? 2 : 4);
}

#if RWKV_INTEGER_PRODUCTS

/// Half of a step of a block, its `group`-th 32 inputs: pairs to `lines`, scales to `scales`.
template <DType type>
void make_integer_group(const std::byte* step, int64_t group, std::byte* lines, std::byte* scales) {
  for (int64_t pair = group * 4; pair < group * 4 + 4; pair++) {
    Bytes bytes[2];
    load_lines<type>(
        pair, [step](int64_t offset) { return step + offset; }, bytes);
    for (const Bytes& line : bytes) {
      Bytes pairs[2];
      widen_to_pairs(line, pairs);
      store_bytes(lines, pairs[0]);
      store_bytes(lines + line_bytes, pairs[1]);
      lines += 2 * line_bytes;
    }
  }
  store(reinterpret_cast<float*>(scales), load_bf16(step + group * block_outputs * 2));
}

/// Inputs from `first` on, a multiple of 64 of them.
template <DType type>
void make_integer_block(const std::byte* block, int64_t first, int64_t inputs, std::byte* to) {
  std::byte *lines = to, *scales = to + inputs / 2 * line_bytes;
  for (int64_t i = first; i < first + inputs; i += scale_group) {
    make_integer_group<type>(block + i / step_inputs * step_bytes(type), i % step_inputs / scale_group, lines,
                             scales);
    lines += scale_group / 2 * line_bytes;
    scales += line_bytes;
  }
}

/// So many lines of bf16 pairs, from where they are or in place, with zeros behind those that there are:
/// what shares a scale.
inline void round_to_integers(const std::byte* from, int64_t count, std::byte* lines, std::byte* scales) {
  constexpr int64_t all = inputs_of_scale(Operand::wide_integers) / 2;
  Bytes largest{};
  for (int64_t i = 0; i < count; i++) largest = larger_bf16(largest, load_bytes(from + i * line_bytes));
  Vec inverse, scale;
  scales_of(larger_of_pairs(largest), weight_bits, inverse, scale);
  for (int64_t i = 0; i < count; i++) {
    Vec first, second;
    widen_pairs(load_bytes(from + i * line_bytes), first, second);
    store_bytes(lines + i * line_bytes, integer_pairs(mul(first, inverse), mul(second, inverse)));
  }
  for (int64_t i = count; i < all; i++) store_bytes(lines + i * line_bytes, Bytes{});
  store(reinterpret_cast<float*>(scales), scale);
}

/// From lines of bf16 pairs, of which there are `count`; inputs: a multiple of 64 with all of them.
inline void make_wide_block(const std::byte* from, int64_t count, int64_t inputs, std::byte* to) {
  constexpr int64_t all = inputs_of_scale(Operand::wide_integers) / 2;
  std::byte* scales = to + inputs / 2 * line_bytes;
  for (int64_t line = 0; line < inputs / 2; line += all, scales += line_bytes) {
    round_to_integers(from + line * line_bytes, std::clamp<int64_t>(count - line, 0, all),
                      to + line * line_bytes, scales);
  }
}

#endif

}  // namespace
}  // namespace rwkv::cpu::ISA
