// AMX: tiles of 16 tokens times tiles of 16 outputs, with bf16 operands.
//
// A step is 32 inputs: a tile of weights is then 1 KiB of a bf16 panel, and inputs of tokens lie tile after
// tile too (Operand::bf16_tiles). A sum goes through the steps in ascending order, so its bits do not depend
// on the number of tokens; within a step it is the instruction's: the sums of even and of odd inputs, and
// then both.
//
// Bytes and operations: an instruction takes 16 cycles for 8192 multiply-adds. Two tiles of tokens times two
// of outputs need four loads of 1 KiB for four instructions, 64 bytes a cycle: half of them, the inputs of
// the tokens, 16 KiB, must come from the first-level cache, where they stay for all outputs of a panel. Its
// weights, 128 KiB, come from the second-level cache, which together with the sums gives what it can.
#pragma once

#include "cpu/kernels/panel.h"

namespace rwkv::cpu::ISA {

constexpr int64_t tile_lines = 16;  ///< tokens, outputs, or pairs of inputs of a tile
constexpr int64_t tile_bytes = tile_lines * line_bytes;
constexpr int64_t tile_inputs = 32;

namespace {

/// All eight tiles are 16 lines of 64 bytes.
class TileConfiguration {
 public:
  TileConfiguration() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t line_bytes[16] = {};
      uint8_t lines[16] = {};
    } all;
    static_assert(sizeof all == 64);
    std::fill_n(all.line_bytes, 8, uint16_t{64});
    std::fill_n(all.lines, 8, uint8_t{16});
    _tile_loadconfig(&all);
  }
  ~TileConfiguration() { _tile_release(); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;
};

/// Two tiles of tokens (or one) and two blocks of the panel (or one) from `block` on get the panel's inputs.
/// x: the first tile of tokens at the panel's first input; group_bytes to the next one.
template <int groups, int blocks>
void multiply_tiles(const Panel& panel, int64_t block, const std::byte* x, int64_t group_bytes, float* sums) {
  constexpr int64_t stride = panel_outputs * 4;
  const std::byte *left = panel.blocks[block], *right = panel.blocks[block + blocks - 1];
  sums += block * block_outputs;
  float* second = sums + tile_lines * panel_outputs;
  if (panel.first == 0) {
    _tile_zero(0);
    if constexpr (blocks == 2) _tile_zero(1);
    if constexpr (groups == 2) _tile_zero(2);
    if constexpr (groups == 2 && blocks == 2) _tile_zero(3);
  } else {
    _tile_loadd(0, sums, stride);
    if constexpr (blocks == 2) _tile_loadd(1, sums + block_outputs, stride);
    if constexpr (groups == 2) _tile_loadd(2, second, stride);
    if constexpr (groups == 2 && blocks == 2) _tile_loadd(3, second + block_outputs, stride);
  }
  for (int64_t at = 0; at < panel.inputs / tile_inputs * tile_bytes; at += tile_bytes) {
    _tile_loadd(4, x + at, line_bytes);
    _tile_loadd(6, left + at, line_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (blocks == 2) {
      _tile_loadd(7, right + at, line_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (groups == 2) {
      _tile_loadd(5, x + group_bytes + at, line_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (blocks == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, stride);
  if constexpr (blocks == 2) _tile_stored(1, sums + block_outputs, stride);
  if constexpr (groups == 2) _tile_stored(2, second, stride);
  if constexpr (groups == 2 && blocks == 2) _tile_stored(3, second + block_outputs, stride);
}

/// begin(tokens) and end(tokens) are called around one or two of the tokens' tiles, which stay in the
/// first-level cache for all blocks.
template <class Begin, class End>
void multiply_by_tiles(const Panel& panel, const PreparedProduct& p, float* sums, Begin begin, End end) {
  const int64_t tokens = p.product->x.rows(), groups = (tokens + tile_lines - 1) / tile_lines;
  const int64_t group_bytes = round_up(p.product->x.cols(), 64) / tile_inputs * tile_bytes;
  int64_t group = 0;
  auto pass = [&]<int count>() {
    const Range these{group * tile_lines, std::min((group + count) * tile_lines, tokens)};
    begin(these);
    const std::byte* x = p.x + group * group_bytes + panel.first / tile_inputs * tile_bytes;
    float* to = sums + group * tile_lines * panel_outputs;
    int64_t block = 0;
    for (; block + 2 <= panel.count; block += 2) multiply_tiles<count, 2>(panel, block, x, group_bytes, to);
    if (block < panel.count) multiply_tiles<count, 1>(panel, block, x, group_bytes, to);
    end(these);
  };
  for (; group + 2 <= groups; group += 2) pass.template operator()<2>();
  if (group < groups) pass.template operator()<1>();
}

}  // namespace
}  // namespace rwkv::cpu::ISA
