// cpu_coded: blocks of bf16 in 12 bits a weight, without loss.
//
// The upper byte of a bf16, its sign and seven bits of its exponent, has few values among neighbouring
// weights: sixteen of them cover 2^16 of magnitude, and of normally distributed weights 1 in 20000 is
// outside. So a segment, 256 inputs of a block of 16 outputs, has a table of its most frequent upper bytes,
// a code of 4 bits for each weight, the lower bytes as they are, and a short list of exceptions. Products of
// one token, which wait for memory, read three quarters of the bytes so.
//
// Elements are numbered as in cpu_blocks: [input / 2][output][input % 2]; 128 of them, four lines, are a
// group. A segment is its head and 32 groups, a group 192 bytes:
//   lower bytes [2][64]: those of the lines 2h and 2h + 1, eight of the one and eight of the other in turns
//   codes [64]: byte j has the code of the weight of lower byte j in its lower, of 64 + j in its upper half
// so that a table lookup in registers of 16 bytes and an interleaving of bytes make lines of cpu_blocks. A
// block's inputs are padded with zeros to whole segments.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ops/layout.h"

namespace rwkv {

constexpr int64_t segment_inputs = 256;
constexpr int64_t segment_elements = segment_inputs * block_outputs;
constexpr int64_t group_elements = 128, group_bytes = 192;

struct alignas(64) SegmentHead {
  uint8_t upper[16] = {};  ///< upper bytes by their codes
  /// Elements, ascending, whose upper byte is another, and those bytes.
  uint16_t positions[15] = {};
  uint8_t exceptions[15] = {};
  uint8_t count = 0;  ///< of exceptions
  uint8_t unused[2] = {};
};
static_assert(sizeof(SegmentHead) == 64);
constexpr int64_t segment_bytes =
    static_cast<int64_t>(sizeof(SegmentHead)) + segment_elements / group_elements * group_bytes;

/// The same matrix in cpu_coded, for one that is bf16 in cpu_blocks, and back.
MatrixLayout coded(MatrixLayout blocks);
MatrixLayout uncoded(MatrixLayout coded);
/// Whether a matrix is in cpu_blocks and would be smaller in cpu_coded.
bool is_worth_coding(const MatrixLayout& m);

/// Whether no segment of a unit of cpu_blocks, `block`, has more exceptions than there is room for.
bool is_codable(const MatrixLayout& m, const std::byte* block);
/// The unit in the form `m`, which is cpu_coded. False when it is not codable: then `out` is undefined.
bool encode_block(const MatrixLayout& m, const std::byte* block, std::byte* out);
/// The elements of a segment, bits of bf16. Whatever its bytes are, nothing else is read.
using SegmentElements = std::array<uint16_t, segment_elements>;
void decode_segment(const std::byte* segment, SegmentElements& elements);

}  // namespace rwkv
