// Tiles of tokens and outputs with 16-bit integers for operands (integers.h).
//
// Bytes and operations: for 64 inputs a tile of 6 tokens and four blocks takes 32 x 24 instructions for
// products, where fp32 takes 64 x 24, and converts, scales and adds each of its 24 sums, which wait in memory
// meanwhile, since registers are full of integers. With two instructions a cycle that is 420 cycles, and 768
// in fp32. Loads are 10 for 24 products, from the first-level cache: a panel of 256 inputs has 33 KiB, a
// tile's inputs 3.
#pragma once

#include "cpu/kernels/integers.h"
#include "cpu/kernels/panel.h"

namespace rwkv::cpu::ISA {
namespace {

/// Of the panel's inputs those from `first` on that share a scale, for a group of tokens and some blocks.
/// Asks for what is so much further than x.
template <int blocks, int tokens>
void multiply_integers(const Panel& panel, int64_t block, int64_t first, const std::byte* x,
                       std::ptrdiff_t to_next, float* sums) {
  const bool fresh = panel.first + first == 0;
  const int64_t lines = std::min(integer_group_lines, (panel.used - first + 1) / 2);
  const std::byte *ends[blocks], *scales[blocks];
  for (int b = 0; b < blocks; b++) {
    ends[b] = panel.blocks[block + b] + (first / 2 + lines) * line_bytes;
    scales[b] = panel.blocks[block + b] + (panel.inputs / 2 + first / integer_group) * line_bytes;
  }
  PairSums acc[tokens][blocks];
#pragma GCC unroll 16
  for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) acc[t][b] = no_pair_sums();
  }
  const std::byte* inputs = x + tokens * 4;
#pragma GCC unroll 1
  for (int64_t at = -lines * line_bytes; at != 0; at += line_bytes, inputs += tokens * 4) {
    prefetch(inputs + to_next);
#pragma GCC unroll 16
    for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++)
        acc[t][b] = add_products(acc[t][b], broadcast_pair(inputs + t * 4), load_bytes(ends[b] + at));
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < tokens; t++) {
    const Vec scale = set1(reinterpret_cast<const float*>(x)[t]);
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) {
      float* sum = sums + t * panel_outputs + b * 16;
      const Vec of_weights = load(reinterpret_cast<const float*>(scales[b]));
      store(sum, fma(of_weights, mul(to_vec(acc[t][b]), scale), fresh ? set1(0) : load(sum)));
    }
  }
}

/// A group of `tokens` tokens gets the panel's inputs, for `blocks` of its blocks from `block` on, and asks
/// for those of the next group, at `next`. Sums are in integer_sum_unit.
template <int blocks, int tokens>
void multiply_integer_tile(const Panel& panel, int64_t block, const std::byte* x, const std::byte* next,
                           float* sums) {
  const std::ptrdiff_t to_next = next - x;
  sums += block * block_outputs;
  for (int64_t first = 0; first < panel.inputs; first += integer_group) {
    multiply_integers<blocks, tokens>(panel, block, first, x, to_next, sums);
    x += tokens * (4 + integer_group * 2);
  }
}

}  // namespace
}  // namespace rwkv::cpu::ISA
