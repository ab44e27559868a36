// Products of several tokens with AMX: tiles of 16 tokens times tiles of 16 outputs, for bf16 and int8
// weights.
//
// Operands are bf16. A step is 32 inputs: a tile of weights is then 1 KiB of a cpu_blocks bf16 matrix as it
// lies in memory; other forms are widened, and int8 weights rounded, into such tiles, a panel at a time.
// Inputs of tokens lie tile after tile too (Operand::bf16_tiles). A sum goes through the steps in ascending
// order, so its bits do not depend on the number of tokens; within a step it is the instruction's: the sums
// of even and of odd inputs, and then both.
//
// Bytes and operations: an instruction takes 16 cycles for 8192 multiply-adds. Two tiles of tokens times two
// of outputs need four loads of 1 KiB for four instructions, 64 bytes a cycle: half of them must come from
// the first-level cache. So the weights of a panel, 16 KiB, stay there while all tokens pass, and sums wait
// in memory between panels, which costs another 16 bytes a cycle.
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"

namespace rwkv::cpu::ISA {
namespace {

constexpr int64_t tile_lines = 16;                    ///< tokens, outputs, or pairs of inputs of a tile
constexpr int64_t step_inputs = 32, panel_steps = 8;  ///< inputs of a tile; tiles of a block in a panel
constexpr int64_t panel_blocks = 2;                   ///< blocks of 16 outputs
constexpr int64_t tile_bytes = 1024, line_bytes = 64;
constexpr int64_t panel_bytes = panel_blocks * panel_steps * tile_bytes;
constexpr int64_t strip_blocks = 4;  ///< outputs that are finished together, since they are near in memory
constexpr int64_t sums_stride = strip_blocks * block_outputs;

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

/// Weights as tiles, those of a block behind each other.
struct Panel {
  const std::byte* blocks[panel_blocks];
  int64_t first_step, steps;
};

/// Lines of the memory from which a panel is made.
struct Lines {
  const std::byte* first = nullptr;
  int64_t stride = 0, count = 0;

  void fetch(int64_t part, int64_t parts) const {
    for (int64_t i = count * part / parts; i < count * (part + 1) / parts; i++)
      _mm_prefetch(reinterpret_cast<const char*>(first + i * stride), _MM_HINT_T1);
  }
};

/// sums [tokens][sums_stride] of two tiles of tokens (or one) and two blocks (or one) get the panel's
/// steps. x: the first tile of tokens at the panel's first step; group_bytes to the next one.
template <int groups, int blocks>
void multiply(const Panel& panel, const std::byte* x, int64_t group_bytes, float* sums) {
  constexpr int64_t stride = sums_stride * 4;
  float* second = sums + tile_lines * sums_stride;
  if (panel.first_step == 0) {
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
  for (int64_t at = 0; at < panel.steps * tile_bytes; at += tile_bytes) {
    _tile_loadd(4, x + at, line_bytes);
    _tile_loadd(6, panel.blocks[0] + at, line_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (blocks == 2) {
      _tile_loadd(7, panel.blocks[1] + at, line_bytes);
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

template <int blocks>
void multiply_all(const Panel& panel, const PreparedProduct& p, float* sums,
                  const Lines (&ahead)[panel_blocks]) {
  const int64_t groups = (p.product->x.rows() + tile_lines - 1) / tile_lines;
  const int64_t group_bytes = (p.product->x.cols() + 63) / 64 * 64 / step_inputs * tile_bytes;
  int64_t group = 0;
  auto pass = [&]<int count>() {
    for (const Lines& lines : ahead) lines.fetch(group / 2, (groups + 1) / 2);
    multiply<count, blocks>(panel, p.x + group * group_bytes + panel.first_step * tile_bytes, group_bytes,
                            sums + group * tile_lines * sums_stride);
    group += count;
  };
  while (group + 2 <= groups) pass.template operator()<2>();
  if (group < groups) pass.template operator()<1>();
}

// --- Panels of weights that are no tiles of bf16 ---

/// Sixteen pairs: first[i] and second[i], rounded.
inline void store_pairs(std::byte* to, __m512 first, __m512 second) {
  const auto apart = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
  const __m512i order = _mm512_add_epi32(
      _mm512_set1_epi32(16 << 16),
      _mm512_mullo_epi32(_mm512_set1_epi32(0x10001),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, apart));
}

/// A cpu_blocks line of int8: four inputs of 16 outputs. A byte b + 128 in the fraction of 2^15 is 2^15 + b +
/// 128, from which a multiply-add makes b * scale without rounding.
inline void widen_quads(const std::byte* line, __m512 scale, std::byte* to) {
  const __m512i bytes =
      _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi32(static_cast<int>(0x80808080u)));
  const __m512 offset = _mm512_mul_ps(scale, _mm512_set1_ps(-32896.0f));
  auto widened = [&](__m512i shifted) {
    const __m512i value = _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(0xff00),
                                                    _mm512_set1_epi32(0x47000000), 0xea);  // a & b | c
    return _mm512_fmadd_ps(_mm512_castsi512_ps(value), scale, offset);
  };
  store_pairs(to, widened(_mm512_slli_epi32(bytes, 8)), widened(bytes));
  store_pairs(to + line_bytes, widened(_mm512_srli_epi32(bytes, 8)), widened(_mm512_srli_epi32(bytes, 16)));
}

/// Steps of a block of 16 outputs; `from` is the block.
inline void widen_block(const MatrixLayout& m, const std::byte* from, int64_t first_step, int64_t steps,
                        std::byte* to) {
  if (m.dtype == DType::bf16) {  // whose last step may be shorter
    const int64_t begin = first_step * tile_bytes,
                  bytes = std::min(m.unit_bytes() - begin, steps * tile_bytes);
    std::memcpy(to, from + begin, static_cast<size_t>(bytes));
    std::memset(to + bytes, 0, static_cast<size_t>(steps * tile_bytes - bytes));
    return;
  }
  for (int64_t step = first_step; step < first_step + steps; step++, to += tile_bytes) {
    const std::byte* group = from + step / 2 * int8_step_bytes;
    const __m512 scale = load_bf16(group + step % 2 * 32).v;
    for (int64_t line = 0; line < 8; line++)
      widen_quads(group + 64 + (step % 2 * 8 + line) * 64, scale, to + line * 2 * line_bytes);
  }
}

/// Steps of `blocks` blocks of an input_rows matrix from output `output` on; zeros behind the last input.
template <int blocks>
void widen_rows(const MatrixLayout& m, const std::byte* rows, int64_t output, int64_t first_step,
                int64_t steps, std::byte* to) {
  const int64_t row_bytes = m.unit_bytes(), end = std::min(m.inputs, (first_step + steps) * step_inputs);
  const int64_t scales = ((m.outputs + scale_group - 1) / scale_group * 2 + 63) / 64 * 64;
  auto weights = [&](int64_t input, int64_t at) -> __m512 {
    if (input >= end) return _mm512_setzero_ps();
    const std::byte* row = rows + input * row_bytes;
    if (m.dtype == DType::bf16) return load_bf16(row + at * 2).v;
    BFloat16 scale;
    std::memcpy(&scale.bits, row + at / scale_group * 2, 2);
    return _mm512_mul_ps(load_i8(row + scales + at).v, _mm512_set1_ps(to_float(scale)));
  };
  for (int64_t pair = 0; pair < steps * tile_lines; pair++) {
    const int64_t input = first_step * step_inputs + pair * 2;
    for (int b = 0; b < blocks; b++) {
      const int64_t at = output + b * block_outputs;
      store_pairs(to + b * panel_steps * tile_bytes + pair * line_bytes, weights(input, at),
                  weights(input + 1, at));
    }
  }
}

/// Some steps of a matrix's blocks; `scratch` has room for panel_bytes.
template <int blocks>
Panel make_panel(const MatrixLayout& m, const std::byte* weights, int64_t block, int64_t first_step,
                 int64_t steps, std::byte* scratch) {
  if (m.layout == Layout::input_rows) {
    widen_rows<blocks>(m, weights, block * block_outputs, first_step, steps, scratch);
    return {{scratch, scratch + panel_steps * tile_bytes}, first_step, steps};
  }
  Panel panel{{}, first_step, steps};
  for (int b = 0; b < blocks; b++) {
    const std::byte* from = weights + (block + b) * m.unit_bytes();
    if (m.dtype == DType::bf16 && (first_step + steps) * step_inputs <= m.inputs) {
      panel.blocks[b] = from + first_step * tile_bytes;
    } else {
      std::byte* to = scratch + b * panel_steps * tile_bytes;
      widen_block(m, from, first_step, steps, to);
      panel.blocks[b] = to;
    }
  }
  return panel;
}

/// What make_panel will read.
inline void find_lines(const MatrixLayout& m, const std::byte* weights, int64_t block, int64_t blocks,
                       int64_t first_step, int64_t steps, Lines (&lines)[panel_blocks]) {
  const bool narrow = m.dtype == DType::i8;
  if (m.layout == Layout::input_rows) {
    const int64_t scales = narrow ? ((m.outputs + scale_group - 1) / scale_group * 2 + 63) / 64 * 64 : 0;
    const int64_t first = first_step * step_inputs, row_bytes = m.unit_bytes();
    lines[0] = {weights + first * row_bytes + scales + block * block_outputs * (narrow ? 1 : 2), row_bytes,
                std::min(steps * step_inputs, m.inputs - first)};
    return;
  }
  const int64_t step_bytes = narrow ? int8_step_bytes / 2 : tile_bytes;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t begin = first_step * step_bytes,
                  bytes = std::min(m.unit_bytes() - begin, steps * step_bytes);
    lines[b] = {weights + (block + b) * m.unit_bytes() + begin, line_bytes, bytes / line_bytes};
  }
}

/// Blocks of 16 outputs of a product, whatever its weights' layout.
class TileProduct {
 public:
  TileProduct(const PreparedProduct& p, int64_t end_block, std::byte* scratch)
      : p_(p),
        m_(layout_of(p.product->weight)),
        weights_(p.product->weight.data),
        end_block_(end_block),
        steps_((m_.inputs + step_inputs - 1) / step_inputs),
        scratch_(scratch),
        sums_(reinterpret_cast<float*>(scratch + panel_bytes)) {}

  void run(int64_t first_block) {
    for (int64_t block = first_block; block < end_block_; block += strip_blocks) {
      const int64_t end = std::min(block + strip_blocks, end_block_), output = block * block_outputs;
      if (m_.inputs == 0) std::fill_n(sums_, p_.product->x.rows() * sums_stride, 0.0f);
      for (int64_t b = block; b < end; b += panel_blocks) {
        float* sums = sums_ + (b - block) * block_outputs;
        end - b >= panel_blocks ? sum<int{panel_blocks}>(b, sums) : sum<1>(b, sums);
      }
      finish_rows(*p_.product, output, std::min(end * block_outputs, m_.outputs) - output, sums_,
                  sums_stride);
    }
  }

 private:
  template <int blocks>
  void sum(int64_t block, float* sums) {
    for (int64_t step = 0; step < steps_; step += panel_steps) {
      const Panel panel =
          make_panel<blocks>(m_, weights_, block, step, std::min(panel_steps, steps_ - step), scratch_);
      Lines ahead[panel_blocks];
      if (step + panel_steps < steps_) {
        find(block, step + panel_steps, ahead);
      } else if (block + blocks < end_block_) {
        find(block + blocks, 0, ahead);
      }
      multiply_all<blocks>(panel, p_, sums, ahead);
    }
  }
  void find(int64_t block, int64_t step, Lines (&lines)[panel_blocks]) const {
    find_lines(m_, weights_, block, std::min(panel_blocks, end_block_ - block), step,
               std::min(panel_steps, steps_ - step), lines);
  }

  const PreparedProduct& p_;
  const MatrixLayout m_;
  const std::byte* weights_;
  int64_t end_block_, steps_;
  std::byte* scratch_;
  float* sums_;  // [tokens][sums_stride]
};

/// Blocks [begin, end); `scratch` has room for tile_scratch_bytes().
inline void matmul_tiles(const PreparedProduct& p, Range blocks, std::byte* scratch) {
  const TileConfiguration configuration;
  TileProduct(p, blocks.end, scratch).run(blocks.begin);
}

inline int64_t tile_scratch_bytes(int64_t tokens) {
  return panel_bytes + (tokens + tile_lines - 1) / tile_lines * tile_lines * sums_stride * 4;
}

}  // namespace
}  // namespace rwkv::cpu::ISA
