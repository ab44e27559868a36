// Inputs of several tokens and blocks of int8 and int4 as integers, for VNNI, which adds the products of four
// pairs of bytes at once.
//
// An input is a 16-bit integer n with a scale for 32 inputs, as it is for one token. VNNI wants bytes without
// a sign on this side: those of n + 32768. Over 32 inputs
//   256 * sum(w * upper) + sum(w * lower) - 32768 * sum(w) = sum(w * n)
// without rounding, and the sums of w are the same for all tokens. What follows, scales and sums in fp32, has
// the order that it has for one token, so the bits are the same, too.
//
// For 32 inputs a group of tokens has its scales, in integer_sum_unit, then upper bytes [8][tokens][4] and
// lower bytes [8][tokens][4]; a block in a panel has int32 -128 * sum(w) [16], scales [16] and int8
// [8][16][4].
#pragma once

#include <cstring>

#include "cpu/kernels/operand.h"

namespace rwkv::cpu::ISA {

/// Several tokens multiply with int8 and int4 blocks so.
constexpr bool integer_products = RWKV_INTEGER_PRODUCTS;

constexpr int64_t group_quads = scale_group / 4;
constexpr int64_t token_group_bytes = 4 + 2 * scale_group;
constexpr int64_t block_group_bytes = (2 + group_quads) * line_bytes;

namespace {

/// Of a token among several that come in groups: so many inputs, a multiple of 32.
inline int64_t grouped_bytes(Operand operand, int64_t inputs) {
  if (operand == Operand::integers) return inputs / scale_group * token_group_bytes;
  return inputs * (is_bf16(operand) ? 2 : 4);
}

#if RWKV_INTEGER_PRODUCTS

/// Half of a step of a block: its `group`-th 32 inputs.
template <DType type>
void make_integer_group(const std::byte* step, int64_t group, std::byte* to) {
  constexpr std::byte ones[4] = {std::byte{1}, std::byte{1}, std::byte{1}, std::byte{1}};
  std::byte* out = to + 2 * line_bytes;
  ByteSums sums{};
  for (int64_t pair = group * group_quads / 2; pair < (group + 1) * group_quads / 2; pair++) {
    Bytes lines[2];
    load_lines<type>(
        pair, [step](int64_t offset) { return step + offset; }, lines);
    for (const Bytes& line : lines) {
      sums = add_products(sums, broadcast_bytes(ones), line);
      store_bytes(out, line);
      out += line_bytes;
    }
  }
  int32_t start[block_outputs];
  static_assert(sizeof start == sizeof sums);
  std::memcpy(start, &sums, sizeof start);
  for (int32_t& sum : start) sum *= -128;
  std::memcpy(to, start, sizeof start);
  store(reinterpret_cast<float*>(to + line_bytes), load_bf16(step + group * block_outputs * 2));
}

/// Inputs from `first` on, a multiple of 64 of them.
template <DType type>
void make_integer_block(const std::byte* block, int64_t first, int64_t inputs, std::byte* to) {
  for (int64_t i = first; i < first + inputs; i += scale_group, to += block_group_bytes)
    make_integer_group<type>(block + i / step_inputs * step_bytes(type), i % step_inputs / scale_group, to);
}

#endif

}  // namespace
}  // namespace rwkv::cpu::ISA
