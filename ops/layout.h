// How matrices lie in memory, and their packing and unpacking. A matrix is [outputs, inputs]: y = W x.
//
// cpu_blocks: blocks of 16 outputs, each block contiguous, the last one padded with zero rows. Inside a block
// the inputs follow each other, for all 16 outputs at once, so that a vector register holds one input's (or
// two's, or four's) weights of 16 outputs and a product needs no horizontal sum:
//   fp32   [inputs][16]
//   fp16   [inputs][16]                         padded to 64 bytes
//   bf16   [inputs / 2][16][2]                  inputs padded with a zero to an even number
//   int8   [inputs / 64] of { bf16 scales [2][16], int8 [16][16][4] }
//   int4   [inputs / 64] of { bf16 scales [2][16], bytes [8][16][4] }
//          inputs padded to a multiple of 64; scale [g][row] belongs to 32 inputs of one row; a byte
//          [l][row][i] has input 8l + i in its lower and input 8l + 4 + i in its upper half, so that both
//          halves of 64 bytes are two lines of int8
// The 2 x 16-bit and 4 x 8-bit interleaving is the operand order of the AVX-512 BF16, VNNI and AMX
// instructions.
//
// cpu_coded: bf16 alone, the same blocks in 12 bits a weight: ops/coding.h. They can be made of most
// matrices, by encode_block(), and are read like all others.
//
// cuda_blocks: blocks of 16 outputs, the last one padded with zero rows; a row of inputs after the other, so
// that the threads of a warp read one row together, 16 bytes each, and tensor cores have their operand:
//   fp32, fp16, bf16   [16][inputs]             inputs padded with zeros to a multiple of 64 bytes
//   int8, int4   integers [16][inputs], bf16 scales [16][inputs / 32]
//          inputs padded to a multiple of 64; scale [row][g] belongs to 32 inputs
//
// input_rows: on every device, for ffn.value, whose inputs are mostly zero. One row of outputs for each
// input, so that a zero input's row is never read:
//   fp32, fp16, bf16   [inputs][outputs]        outputs padded with zeros to a multiple of 64 bytes
//   int8, int4   [inputs] of { bf16 scales [outputs / 32], integers [outputs] }, each part padded to 64 bytes
//          scale [g] belongs to 32 neighbouring outputs of one input
//
// Where rows hold int4, a byte has the first of two neighbours in its lower half. Padding is zero bytes,
// which is what padded integers multiply or are multiplied with.
//
// A unit is what can be packed on its own and is contiguous: a block of 16 outputs, or an input's row.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace rwkv {

constexpr int64_t block_outputs = 16;  ///< outputs in a block of cpu_blocks and cuda_blocks
constexpr int64_t scale_group = 32;    ///< int8 or int4 weights that share a scale
constexpr int64_t step_inputs =
    64;  ///< inputs of a step of such weights in cpu_blocks; padding in cuda_blocks
/// Bytes of a step, the first 64 of which are scales.
constexpr int64_t step_bytes(DType dtype) { return 64 + bytes_of(dtype, step_inputs * block_outputs); }

/// Whether a device whose blocks have the layout `blocks` multiplies with matrices of this one.
constexpr bool is_of(Layout blocks, Layout layout) {
  return layout == blocks || layout == Layout::input_rows ||
         (blocks == Layout::cpu_blocks && layout == Layout::cpu_coded);
}

struct MatrixLayout {
  Layout layout = Layout::cpu_blocks;
  DType dtype = DType::f32;
  int64_t outputs = 0;
  int64_t inputs = 0;

  [[nodiscard]] int64_t units() const;
  [[nodiscard]] int64_t unit_bytes() const;
  [[nodiscard]] int64_t bytes() const { return units() * unit_bytes(); }
  /// fp32 values that pack_unit reads and unpack_unit writes for unit `u`: rows x columns, dense.
  [[nodiscard]] int64_t tile_rows(int64_t u) const;
  [[nodiscard]] int64_t tile_cols() const;
};

/// Throws Error when a matrix of this layout and type cannot be, or its size overflows.
void check_layout(const MatrixLayout& m, const char* what);

/// tile: [tile_rows(u), tile_cols()]: for blocks rows 16u... of the matrix, for input_rows its column u.
/// packed: unit_bytes(), padding included. Nothing is packed into cpu_coded.
void pack_unit(const MatrixLayout& m, int64_t u, const float* tile, std::byte* packed);
void unpack_unit(const MatrixLayout& m, int64_t u, const std::byte* packed, float* tile);

/// From one form of a matrix to another. Integers of the same type stay as they are, with their scales;
/// everything else goes through `tile`, which has room for a unit's values.
void repack_unit(const MatrixLayout& from, int64_t u, const std::byte* in, const MatrixLayout& to,
                 std::byte* out, float* tile);

/// A tensor that views packed bytes.
Tensor packed_view(const MatrixLayout& m, const std::byte* data);
inline MatrixLayout layout_of(const Tensor& t) { return {t.layout, t.dtype, t.sizes[0], t.sizes[1]}; }

/// Conversion of dense elements, for any pair of fp32, fp16, bf16.
void to_f32(const std::byte* in, DType dtype, int64_t count, float* out);
void from_f32(const float* in, DType dtype, int64_t count, std::byte* out);

}  // namespace rwkv
