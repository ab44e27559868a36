// Device memory that operators take beside their operands: arithmetic on limits alone, so that memory can be
// planned for a device that is not here, by a program without CUDA too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "ops/ops.h"

namespace rwkv::cuda {

/// Counters that are zero whenever no kernel runs.
constexpr int max_counters = 256;
/// Inputs that matmul pads operands to a multiple of.
constexpr int operand_padding = 64;
/// Products with input_rows: bytes of a tile's row, inputs of a block, and not more pieces of the inputs than
/// make so many blocks.
constexpr int tile_bytes = 512, least_piece = 256, enough_blocks = 256;

/// Inputs of products as tensor cores read them, each with at least 64 inputs, and exponents.
inline size_t operand_bytes(const Ops::Limits& limits) {
  if (limits.tokens < 2) return 0;
  const int64_t operands = limits.product_inputs / operand_padding;
  return static_cast<size_t>(limits.tokens * limits.product_inputs * 4 + operands * (limits.tokens * 4 + 16));
}

/// Partial sums of the largest product with input_rows: none is in pieces that make more blocks than enough.
inline size_t sum_bytes(const Ops::Limits& limits) {
  int64_t most = 0;
  for (DType type : {DType::f32, DType::f16, DType::bf16, DType::i8, DType::i4}) {
    const int64_t width = tile_bytes * 8 / bits_of(type);
    const int64_t tiles = (limits.product_outputs + width - 1) / width;
    const int64_t pieces = (limits.product_inputs + least_piece - 1) / least_piece;
    most = std::max(most, std::min<int64_t>(tiles * pieces, enough_blocks) * width);
  }
  return static_cast<size_t>(most) * sizeof(float);
}

/// Device::workspace_bytes().
inline uint64_t operator_bytes(const Ops::Limits& limits) {
  return operand_bytes(limits) + sum_bytes(limits) + max_counters * sizeof(unsigned);
}

/// Device::spare_memory() of a real device: memory comes in pages of 2 MiB, kernels are loaded when they are
/// first launched, and recorded tokens take some too.
inline uint64_t spare_bytes(uint64_t free) { return std::min<uint64_t>(uint64_t{128} << 20, free / 16); }

}  // namespace rwkv::cuda
