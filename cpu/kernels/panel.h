// Panels: some inputs of a few blocks of 16 outputs, from weights of any layout and type, in the form that
// products of several tokens multiply with: fp32 [inputs][16] or bf16 [inputs / 2][16][2], as cpu_blocks has
// them, or integers (integers.h). Weights that lie so are used in place; others are widened, and integers for
// bf16 panels rounded, once for all tokens.
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/kernels/coded.h"
#include "cpu/kernels/integers.h"

namespace rwkv::cpu::ISA {

/// Room for blocks.
constexpr int64_t panel_blocks = blocks_at_once(has_tiles ? Operand::bf16_tiles : Operand::f32);
constexpr int64_t panel_outputs = panel_blocks * block_outputs;
/// With room for the scales of 256 inputs.
constexpr int64_t panel_block_bytes = (8 << 10) + (integer_products ? 256 / integer_group * line_bytes : 0);
constexpr int64_t panel_bytes = panel_blocks * panel_block_bytes;

namespace {

struct Panel {
  const std::byte* blocks[panel_blocks];
  int64_t count;          ///< of blocks
  int64_t first, inputs;  ///< inputs: padded with zeros to what the operand has
  int64_t used;           ///< of these inputs the ones that the matrix has
};

/// Memory from which a panel is made: pieces of whole lines.
struct Pieces {
  const std::byte* first = nullptr;
  int64_t stride = 0, bytes = 0, count = 0;

  /// Asks for part [begin, end) of `all`.
  void fetch(int64_t begin, int64_t end, int64_t all) const {
    for (int64_t i = count * begin / all; i < count * end / all; i++) {
      for (int64_t at = 0; at < bytes; at += line_bytes) prefetch(first + i * stride + at);
    }
  }
};

inline int64_t panel_inputs(Operand operand) {
  return (8 << 10) / (is_bf16(operand) || operand == Operand::several_integers ? line_bytes / 2 : line_bytes);
}

// Sources: four neighbouring inputs, from a multiple of four on, of 16 outputs. What lies behind the last
// input is zero.

struct Rows {
  MatrixLayout m;
  const std::byte* weights;
  int64_t row_bytes = m.unit_bytes(), scale_bytes = row_scale_bytes(m);

  [[nodiscard]] const std::byte* at(int64_t input) const { return weights + input * row_bytes; }

  void quad(int64_t block, int64_t input, Vec (&w)[4]) const {
    for (int i = 0; i < 4; i++)
      w[i] = input + i < m.inputs ? row(at(input + i), block * block_outputs) : set1(0);
  }
  [[nodiscard]] Vec row_or_zero(const std::byte* row, int64_t output) const {
    return output < m.outputs ? this->row(row, output) : set1(0);
  }
  [[nodiscard]] Vec row(const std::byte* row, int64_t output) const {
    switch (m.dtype) {
      case DType::f32:
        return load(reinterpret_cast<const float*>(row) + output);
      case DType::f16:
        return load_f16(row + output * 2);
      case DType::bf16:
        return load_bf16(row + output * 2);
      default:
        return mul(integers(row, output), set1(row_scale(row, output)));
    }
  }
  /// Without their scale.
  [[nodiscard]] Vec integers(const std::byte* row, int64_t output) const {
    return m.dtype == DType::i4 ? load_i4(row + scale_bytes + output / 2)
                                : load_i8(row + scale_bytes + output);
  }
};

struct F16Blocks {
  MatrixLayout m;
  const std::byte* weights;
  int64_t block_bytes = m.unit_bytes();

  void quad(int64_t block, int64_t input, Vec (&w)[4]) const {
    const std::byte* at = weights + block * block_bytes + input * 32;
    for (int i = 0; i < 4; i++) w[i] = input + i < m.inputs ? load_f16(at + i * 32) : set1(0);
  }
};

struct BF16Blocks {
  MatrixLayout m;
  const std::byte* weights;
  int64_t block_bytes = m.unit_bytes();

  void quad(int64_t block, int64_t input, Vec (&w)[4]) const {
    const std::byte* at = weights + block * block_bytes + input * 32;
    w[0] = w[1] = w[2] = w[3] = set1(0);
    if (input < m.inputs) widen_pairs(load_bytes(at), w[0], w[1]);
    if (input + 2 < m.inputs) widen_pairs(load_bytes(at + line_bytes), w[2], w[3]);
  }
};

template <DType type>
struct IntegerBlocks {
  MatrixLayout m;
  const std::byte* weights;
  int64_t block_bytes = m.unit_bytes();

  void quad(int64_t block, int64_t input, Vec (&w)[4]) const {
    const int64_t in_step = input % step_inputs;
    const std::byte* step = weights + block * block_bytes + input / step_inputs * step_bytes(type);
    Bytes lines[2];
    load_lines<type>(
        in_step / 8, [step](int64_t offset) { return step + offset; }, lines);
    widen(lines[in_step / 4 % 2], load_bf16(step + in_step / scale_group * 32), w);
  }
};

struct CodedBlocks {
  MatrixLayout m;
  const std::byte* weights;

  /// Decodes eight inputs anew each time.
  void quad(int64_t block, int64_t input, Vec (&w)[4]) const {
    const std::byte* segment = weights + block * m.unit_bytes() + input / segment_inputs * segment_bytes;
    SegmentReader reader(segment, input % segment_inputs / group_inputs);
    int64_t line = -(input % group_inputs) / 2;
    reader.read_group([&](const Bytes& pairs) {
      if (line == 0 || line == 1) widen_pairs(pairs, w[2 * line], w[2 * line + 1]);
      line++;
    });
  }
};

/// Some outputs of some inputs, but for their scales.
inline Pieces pieces_of_rows(const Rows& rows, Range outputs, Range inputs) {
  const std::byte* begin = rows.weights + inputs.begin * rows.row_bytes + rows.scale_bytes;
  return {begin + bytes_of(rows.m.dtype, outputs.begin), rows.row_bytes,
          bytes_of(rows.m.dtype, outputs.end - outputs.begin), inputs.end - inputs.begin};
}

/// All of a panel; where `to` says that its blocks are.
template <class Source>
void widen(const Source& source, [[maybe_unused]] Operand operand, int64_t block, int64_t blocks,
           int64_t first, int64_t inputs, std::byte* to) {
  for (int64_t b = 0; b < blocks; b++, to += panel_block_bytes) {
    std::byte* line = to;
    for (int64_t i = 0; i < inputs; i += 4) {
      Vec w[4];
      source.quad(block + b, first + i, w);
#if RWKV_ISA >= RWKV_ISA_avx512bf16
      if (is_bf16(operand)) {
        store_bf16_pairs(line, w[0], w[1]);
        store_bf16_pairs(line + line_bytes, w[2], w[3]);
        line += 2 * line_bytes;
        continue;
      }
#endif
      for (const Vec& v : w) {
        store(reinterpret_cast<float*>(line), v);
        line += line_bytes;
      }
    }
  }
}

#if RWKV_ISA == RWKV_ISA_amx
/// Pairs of bf16 from rows of bf16, which nothing but the order has to change for. Rows are padded to 32
/// outputs.
inline void pair_rows(const MatrixLayout& m, const std::byte* weights, int64_t block, int64_t blocks,
                      int64_t first, int64_t inputs, std::byte* to) {
  const int64_t row_bytes = m.unit_bytes();
  for (int64_t i = 0; i < inputs; i += 2, to += line_bytes) {
    const std::byte* row = weights + (first + i) * row_bytes + block * block_outputs * 2;
    for (int64_t b = 0; b < blocks; b += 2) {
      auto load_row = [&](int64_t input) {
        return first + input < m.inputs
                   ? _mm512_loadu_si512(row + (input - i) * row_bytes + b * block_outputs * 2)
                   : _mm512_setzero_si512();
      };
      std::byte* line = to + b * panel_block_bytes;
      interleave(load_row(i), load_row(i + 1), line, b + 1 < blocks ? line + panel_block_bytes : nullptr);
    }
  }
}
#endif

/// The part of a block of cpu_coded, within a segment, that begins with `first`, a multiple of 8.
inline void decode_block(const MatrixLayout& m, const std::byte* weights, Operand operand, int64_t block,
                         int64_t first, int64_t inputs, std::byte* to) {
  const std::byte* segment = weights + block * m.unit_bytes() + first / segment_inputs * segment_bytes;
  SegmentReader reader(segment, groups_of(first % segment_inputs));
  for (int64_t g = 0; g < groups_of(inputs); g++) {
    reader.read_group([&](const Bytes& line) {
      if (is_bf16(operand)) {
        store_bytes(to, line);
        to += line_bytes;
        return;
      }
      Vec w[2];
      widen_pairs(line, w[0], w[1]);
      for (int i = 0; i < 2; i++) store(reinterpret_cast<float*>(to + i * line_bytes), w[i]);
      to += 2 * line_bytes;
    });
  }
}

#if RWKV_INTEGER_PRODUCTS
/// The same for integers (integers.h): `first` is a multiple of 64.
inline void make_integers(const MatrixLayout& m, const std::byte* weights, int64_t block, int64_t first,
                          int64_t inputs, std::byte* to) {
  const std::byte* from = weights + block * m.unit_bytes();
  if (m.dtype == DType::i4) return make_integer_block<DType::i4>(from, first, inputs, to);
  if (m.dtype == DType::i8) return make_integer_block<DType::i8>(from, first, inputs, to);
  const int64_t lines = (std::min(inputs, m.inputs - first) + 1) / 2;
  if (m.layout == Layout::cpu_coded) {
    decode_block(m, weights, Operand::bf16, block, first, lines * 2, to);
    return make_bf16_block(to, lines, inputs, to);
  }
  make_bf16_block(from + first / 2 * line_bytes, lines, inputs, to);
}
#endif

/// Inputs that a product goes through at once.
inline int64_t input_multiple(Operand operand) {
  switch (operand) {
    case Operand::several_integers:
      return integer_group;
    case Operand::bf16_tiles:
      return 32;
    case Operand::bf16:
      return 2;
    default:
      return 1;
  }
}

/// Whether all of these inputs lie in memory as the operand wants them.
inline bool is_panel(const MatrixLayout& m, Operand operand, int64_t end) {
  if (m.layout != Layout::cpu_blocks) return false;
  if (operand == Operand::f32) return m.dtype == DType::f32;
  return m.dtype == DType::bf16 && is_bf16(operand) && end <= round_up(m.inputs, 2);
}

inline Panel make_panel(const MatrixLayout& m, const std::byte* weights, Operand operand, int64_t block,
                        int64_t blocks, int64_t first, std::byte* scratch) {
  const int64_t used = std::min(panel_inputs(operand), m.inputs - first);
  Panel panel{{}, blocks, first, round_up(used, input_multiple(operand)), used};
  const bool in_place = is_panel(m, operand, first + panel.inputs);
  for (int64_t b = 0; b < blocks; b++) {
    panel.blocks[b] = in_place ? weights + (block + b) * m.unit_bytes() + first * (is_bf16(operand) ? 32 : 64)
                               : scratch + b * panel_block_bytes;
  }
  if (in_place) return panel;
  auto from = [&](const auto& source) {
    widen(source, operand, block, blocks, first, panel.inputs, scratch);
  };
#if RWKV_INTEGER_PRODUCTS
  if (operand == Operand::several_integers) {
    for (int64_t b = 0; b < blocks; b++)
      make_integers(m, weights, block + b, first, panel.inputs, scratch + b * panel_block_bytes);
    return panel;
  }
#endif
#if RWKV_ISA == RWKV_ISA_amx
  if (m.layout == Layout::input_rows) {  // other sets take the rows that are wanted: rows_panel.h
    if (m.dtype == DType::bf16) {
      pair_rows(m, weights, block, blocks, first, panel.inputs, scratch);
    } else {
      from(Rows{m, weights});
    }
    return panel;
  }
#endif
  if (m.layout == Layout::cpu_coded) {
    for (int64_t b = 0; b < blocks; b++)
      decode_block(m, weights, operand, block + b, first, panel.inputs, scratch + b * panel_block_bytes);
  } else if (m.dtype == DType::f16) {
    from(F16Blocks{m, weights});
  } else if (m.dtype == DType::bf16) {
    from(BF16Blocks{m, weights});
  } else if (m.dtype == DType::i4) {
    from(IntegerBlocks<DType::i4>{m, weights});
  } else {
    from(IntegerBlocks<DType::i8>{m, weights});
  }
  return panel;
}

/// What make_panel will read, but for scales of rows.
inline void find_pieces(const MatrixLayout& m, const std::byte* weights, Operand operand, int64_t block,
                        int64_t blocks, int64_t first, Pieces (&pieces)[panel_blocks]) {
  const int64_t inputs = std::min(panel_inputs(operand), m.inputs - first);
  if (m.layout == Layout::input_rows) {
    const Range outputs{block * block_outputs, (block + blocks) * block_outputs};
    pieces[0] = pieces_of_rows({m, weights}, outputs, {first, first + inputs});
    return;
  }
  if (m.layout == Layout::cpu_coded) {
    const int64_t begin =
        first / segment_inputs * segment_bytes + groups_of(first % segment_inputs) * group_bytes;
    const int64_t bytes = static_cast<int64_t>(sizeof(SegmentHead)) + groups_of(inputs) * group_bytes;
    for (int64_t b = 0; b < blocks; b++)
      pieces[b] = {weights + (block + b) * m.unit_bytes() + begin, line_bytes, line_bytes,
                   bytes / line_bytes};
    return;
  }
  const int64_t begin = first * m.unit_bytes() / std::max<int64_t>(m.inputs, 1) / line_bytes * line_bytes;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t bytes = std::min(m.unit_bytes() - begin, bytes_of(m.dtype, inputs * block_outputs));
    pieces[b] = {weights + (block + b) * m.unit_bytes() + begin, line_bytes, line_bytes, bytes / line_bytes};
  }
}

}  // namespace
}  // namespace rwkv::cpu::ISA
