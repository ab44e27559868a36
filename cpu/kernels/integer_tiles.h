// Tiles of tokens and outputs with integers for operands, where VNNI adds four products of bytes at once.
//
// Bytes and operations: for 32 inputs a tile of 6 tokens and four blocks takes 2 x 8 x 24 instructions for
// products, and shifts, converts, scales and adds each of its 24 sums: 240 cycles with two ports, where fp32
// takes 384. Loads are 10 for 24 products, from the first-level cache: a panel of 256 inputs has 20 KiB, a
// tile's inputs 3. Sums in fp32 wait in memory between 32 inputs, since registers are full of integers.
#pragma once

#include "cpu/kernels/integers.h"
#include "cpu/kernels/panel.h"

namespace rwkv::cpu::ISA {
namespace {

/// 32 inputs of a group of tokens and some blocks, laid out as integers.h says: the upper bytes, then the
/// lower ones. Asks for as many at `next`.
template <int blocks, int tokens>
void multiply_integers(const std::byte* const (&weights)[blocks], const std::byte* x, const std::byte* next,
                       bool fresh, float* sums) {
  ByteSums acc[tokens][blocks];
#pragma GCC unroll 16
  for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) acc[t][b] = load_sums(weights[b]);
  }
  const std::byte* bytes = x + tokens * 4;
  const std::ptrdiff_t to_next = next - bytes;
  const std::byte* ends[blocks];
  for (int b = 0; b < blocks; b++) ends[b] = weights[b] + block_group_bytes;
#pragma GCC unroll 1
  for (int64_t half = 0; half < 2; half++) {
#pragma GCC unroll 1
    for (int64_t at = -group_quads * line_bytes; at != 0; at += line_bytes, bytes += tokens * 4) {
      prefetch(bytes + to_next);
#pragma GCC unroll 16
      for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
          acc[t][b] = add_products(acc[t][b], broadcast_bytes(bytes + t * 4), load_bytes(ends[b] + at));
      }
    }
    if (half == 1) break;
#pragma GCC unroll 16
    for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++) acc[t][b] = times_256(acc[t][b]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < tokens; t++) {
    const Vec scale = set1(reinterpret_cast<const float*>(x)[t]);
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) {
      float* sum = sums + t * panel_outputs + b * 16;
      const Vec of_weights = load(reinterpret_cast<const float*>(weights[b] + line_bytes));
      store(sum, fma(of_weights, mul(to_vec(acc[t][b]), scale), fresh ? set1(0) : load(sum)));
    }
  }
}

/// A group of `tokens` tokens gets the panel's inputs, for `blocks` of its blocks from `block` on, and asks
/// for those of the next group, at `next`. Sums are in integer_sum_unit.
template <int blocks, int tokens>
void multiply_integer_tile(const Panel& panel, int64_t block, const std::byte* x, const std::byte* next,
                           float* sums) {
  const std::byte* weights[blocks];
  for (int b = 0; b < blocks; b++) weights[b] = panel.blocks[block + b];
  sums += block * block_outputs;
  constexpr int64_t group_bytes = tokens * token_group_bytes;
  for (int64_t i = 0; i < panel.inputs; i += scale_group, x += group_bytes, next += group_bytes) {
    multiply_integers<blocks, tokens>(weights, x, next, panel.first + i == 0, sums);
    for (const std::byte*& w : weights) w += block_group_bytes;
  }
}

}  // namespace
}  // namespace rwkv::cpu::ISA
