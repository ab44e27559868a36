// Products of several tokens, and the table of an instruction set's kernels.
//
// Every output is one chain of multiply-adds over its inputs, in ascending order (pairs of bf16 and tiles:
// the instruction's order within its inputs), so that a token's result does not depend on how many others
// came with it. Lanes are outputs.
//
// Bytes and operations: a tile of tokens and outputs has its sums in registers; per input it loads the
// outputs' weights and broadcasts an input of each token. With AVX-512 that are 2 + 12 loads for 24
// multiply-adds. The weights of a panel stay in the first-level cache while all tokens pass; inputs lie in
// the order in which a tile reads them, since rows of 4 KiB would share one set of the cache. Sums wait in
// memory between panels.
#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "core/checked.h"
#include "core/half.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/panel.h"
#if RWKV_ISA == RWKV_ISA_amx
#include "cpu/kernels/tiles.h"
#endif

namespace rwkv::cpu::ISA {
namespace {

/// Tokens whose inputs lie together.
int64_t group_tokens(Operand operand) {
  return operand == Operand::bf16_tiles ? operand_tile_tokens : tile_tokens;
}

/// One line of weights times the inputs of one token.
template <bool bf16>
Vec add_line(Vec sums, const std::byte* line, const std::byte* x) {
#if RWKV_ISA >= RWKV_ISA_avx512bf16
  if constexpr (bf16) return add_pairs(sums, line, x);
#endif
  return fma(load(reinterpret_cast<const float*>(line)), set1(*reinterpret_cast<const float*>(x)), sums);
}

/// `tokens` tokens of a group, whose inputs are `stride` bytes apart, get the panel's inputs, for `blocks` of
/// its blocks from `block` on.
template <bool bf16, int blocks, int tokens>
void multiply_tile(const Panel& panel, int64_t block, const std::byte* x, int64_t stride, float* sums) {
  const std::byte* const* weights = panel.blocks + block;
  sums += block * block_outputs;
  Vec acc[tokens][blocks];
  for (int t = 0; t < tokens; t++) {
    for (int b = 0; b < blocks; b++)
      acc[t][b] = panel.first == 0 ? set1(0) : load(sums + t * panel_outputs + b * 16);
  }
  const int64_t lines = bf16 ? panel.inputs / 2 : panel.inputs;
  for (int64_t i = 0; i < lines; i++, x += stride) {
    for (int t = 0; t < tokens; t++) {
      for (int b = 0; b < blocks; b++)
        acc[t][b] = add_line<bf16>(acc[t][b], weights[b] + i * line_bytes, x + t * 4);
    }
  }
  for (int t = 0; t < tokens; t++) {
    for (int b = 0; b < blocks; b++) store(sums + t * panel_outputs + b * 16, acc[t][b]);
  }
}

/// Some blocks of a panel and a group of tokens.
template <bool bf16, int blocks>
void multiply_group(const Panel& panel, int64_t block, const std::byte* x, int64_t group, float* sums) {
  int64_t t = 0;
  auto some = [&]<int count>() {
    for (; t + count <= group; t += count) {
      multiply_tile<bf16, blocks, count>(panel, block, x + t * 4, group * 4, sums + t * panel_outputs);
    }
  };
  some.template operator()<int{tile_tokens}>();
  some.template operator()<3>();
  some.template operator()<1>();
}

/// fetch(part, parts) is called between the groups, whose inputs stay in the first-level cache for all
/// blocks.
template <bool bf16, class Fetch>
void multiply_by_vectors(const Panel& panel, const PreparedProduct& p, float* sums, Fetch fetch) {
  const int64_t tokens = p.product->x.rows(), element = bf16 ? 2 : 4;
  const int64_t token_bytes = round_up(p.product->x.cols(), 64) * element;
  for (int64_t first = 0; first < tokens; first += tile_tokens) {
    fetch(first / tile_tokens, (tokens + tile_tokens - 1) / tile_tokens);
    const int64_t group = std::min(tile_tokens, tokens - first);
    const std::byte* x = p.x + first * token_bytes + panel.first * element * group;
    float* to = sums + first * panel_outputs;
    int64_t block = 0;
    for (; block + tile_blocks <= panel.count; block += tile_blocks)
      multiply_group<bf16, int{tile_blocks}>(panel, block, x, group, to);
    for (; block < panel.count; block++) multiply_group<bf16, 1>(panel, block, x, group, to);
  }
}

template <class Fetch>
void multiply_all(const Panel& panel, const PreparedProduct& p, float* sums, Fetch fetch) {
#if RWKV_ISA == RWKV_ISA_amx
  if (p.operand == Operand::bf16_tiles) return multiply_by_tiles(panel, p, sums, fetch);
#endif
  if constexpr (bf16_products) {
    if (p.operand == Operand::bf16) return multiply_by_vectors<true>(panel, p, sums, fetch);
  }
  multiply_by_vectors<false>(panel, p, sums, fetch);
}

/// Blocks of 16 outputs of a product, whatever its weights' layout.
class BlocksProduct {
 public:
  BlocksProduct(const PreparedProduct& p, int64_t end_block, std::byte* scratch)
      : p_(p),
        m_(layout_of(p.product->weight)),
        weights_(p.product->weight.data),
        end_block_(end_block),
        scratch_(scratch),
        sums_(reinterpret_cast<float*>(scratch + panel_bytes)) {}

  void run(int64_t first_block) {
    for (int64_t block = first_block; block < end_block_; block += panel_blocks) {
      const int64_t output = block * block_outputs;
      if (m_.inputs == 0) std::fill_n(sums_, p_.product->x.rows() * panel_outputs, 0.0f);
      sum(block);
      finish_rows(*p_.product, output, std::min(blocks_from(block) * block_outputs, m_.outputs - output),
                  sums_, panel_outputs);
    }
  }

 private:
  [[nodiscard]] int64_t blocks_from(int64_t block) const {
    return std::min(panel_blocks, end_block_ - block);
  }

  void sum(int64_t block) {
    const int64_t step = panel_inputs(p_.operand), next = block + panel_blocks;
    for (int64_t first = 0; first < m_.inputs; first += step) {
      const Panel panel = make_panel(m_, weights_, p_.operand, block, blocks_from(block), first, scratch_);
      Lines ahead[panel_blocks];
      if (first + step < m_.inputs) {
        find_lines(m_, weights_, p_.operand, block, blocks_from(block), first + step, ahead);
      } else if (next < end_block_) {
        find_lines(m_, weights_, p_.operand, next, blocks_from(next), 0, ahead);
      }
      multiply_all(panel, p_, sums_, [&ahead](int64_t part, int64_t parts) {
        for (const Lines& lines : ahead) lines.fetch(part, parts);
      });
    }
  }

  const PreparedProduct& p_;
  const MatrixLayout m_;
  const std::byte* weights_;
  int64_t end_block_;
  std::byte* scratch_;
  float* sums_;  // [tokens][panel_outputs]
};

void matmul(const PreparedProduct& p, Range blocks, std::byte* scratch) {
#if RWKV_ISA == RWKV_ISA_amx
  const TileConfiguration configuration;
#endif
  BlocksProduct(p, blocks.end, scratch).run(blocks.begin);
}

int64_t scratch_bytes(int64_t tokens) {
  return panel_bytes + round_up(tokens, operand_tile_tokens) * panel_outputs * 4;
}

// --- Inputs ---

Operand operand_of(const Tensor& weight, int64_t tokens) {
  const bool blocks = weight.layout == Layout::cpu_blocks, quantized = is_quantized(weight.dtype);
  if (bf16_products && tokens > 1) {
    const bool rounds = quantized && weight.elements() > small_matrix;
    if (rounds || weight.dtype == DType::bf16) return has_tiles ? Operand::bf16_tiles : Operand::bf16;
  }
  if (tokens == 1 && quantized && blocks) return Operand::integers;
  if (weight.dtype != DType::bf16) return Operand::f32;
  return bf16_products && blocks ? Operand::bf16 : Operand::rounded_f32;
}

/// Sixteen inputs from `input` on, zero behind the last one.
Vec some_inputs(const float* x, int64_t count, int64_t input) {
  const int64_t rest = std::clamp<int64_t>(count - input, 0, 16);
  return rest == 16 ? load(x + input) : load_part(x + input, rest);
}

/// Inputs of a token as words of a group: fp32, or pairs of bf16.
void prepare_words(const float* x, int64_t count, Operand operand, int64_t stride, std::byte* out) {
  const int64_t words = operand == Operand::bf16 ? 8 : 16;
  for (int64_t i = 0; i < round_up(count, 64); i += 16) {
    alignas(64) uint32_t some[16];
    const Vec v = some_inputs(x, count, i);
    if (operand == Operand::bf16) {
      store_bf16(some, v);
    } else {
      store(reinterpret_cast<float*>(some), operand == Operand::f32 ? v : round_to_bf16(v));
    }
    for (int64_t w = 0; w < words; w++, out += stride) std::memcpy(out, some + w, 4);
  }
}

void prepare_tile_lines(const float* x, int64_t count, std::byte* out) {
  for (int64_t i = 0; i < round_up(count, 64); i += 16)
    store_bf16(out + i / 32 * 1024 + i % 32 * 2, some_inputs(x, count, i));
}

/// Thirty-two inputs, the `group`-th part of a step. False when they are not finite.
bool prepare_integers(const float* x, int64_t count, int group, IntegerStep& step) {
  constexpr float largest = 127 * 256 + 127, smallest = 0x1p-100f;  // less is taken as zero
  const Vec inputs[2] = {some_inputs(x, count, 0), some_inputs(x, count, 16)};
  const float first = largest_magnitude(inputs[0]), second = largest_magnitude(inputs[1]);
  const float finite = std::numeric_limits<float>::max(), highest = std::max(first, second);
  if (!(first <= finite && second <= finite)) return false;
  const Vec inverse = set1(highest < smallest ? 0 : largest / highest);
  int32_t integers[scale_group], total = 0;
  for (int half = 0; half < 2; half++) store_integers(integers + half * 16, mul(inputs[half], inverse));
  for (int32_t i : integers) total += i;
  for (int line = 0; line < 8; line++) arrange_inputs(integers + line * 4, step.inputs[group * 8 + line]);
  step.scale[group] = highest / (largest * integer_sum_unit);
  step.excess[group] = 128 * total;
  return true;
}

bool prepare_integers(const float* x, int64_t count, std::byte* out) {
  bool finite = true;
  auto* steps = reinterpret_cast<IntegerStep*>(out);
  for (int64_t i = 0; i < round_up(count, step_inputs); i += scale_group) {
    const int64_t here = std::clamp<int64_t>(count - i, 0, scale_group);
    const auto group = static_cast<int>(i % step_inputs / scale_group);
    finite = prepare_integers(x + std::min(i, count), here, group, steps[i / step_inputs]) && finite;
  }
  return finite;
}

bool prepare(const Tensor& x, Operand operand, Range tokens, std::byte* out) {
  if (operand == Operand::integers) return prepare_integers(x.row(0), x.cols(), out);
  const int64_t size = group_tokens(operand), all = x.rows(), count = x.cols();
  const int64_t token_bytes = round_up(count, 64) * (is_bf16(operand) ? 2 : 4);
  for (int64_t t = tokens.begin; t < tokens.end; t++) {
    const int64_t first = t / size * size, group = std::min(size, all - first), in_group = t - first;
    std::byte* to = out + first * token_bytes;
    if (operand == Operand::bf16_tiles) {
      prepare_tile_lines(x.row(t), count, to + in_group * line_bytes);
    } else {
      prepare_words(x.row(t), count, operand, group * 4, to + in_group * 4);
    }
  }
  return true;
}

}  // namespace

// The rest of the table is in matvec.cpp, recurrence.cpp and rows.cpp.
void matvec_blocks(const PreparedProduct& p, Range blocks);
void matvec_rows(const PreparedProduct& p, Range outputs);
void embed(float* out, const std::byte* row, DType dtype, int64_t width);
void normalize(float* out, const float* x, const Norm& norm, int64_t width);
void mix(const TokenShift& shift, int64_t t);
void wkv4(const Wkv4& wkv, Range channels);
void wkv5(const Wkv5& wkv, Range heads);
void wkv7(const Wkv7& wkv, Range heads);

#define RWKV_TEXT_(name) #name
#define RWKV_TEXT(name) RWKV_TEXT_(name)
const Kernels kernels = {RWKV_TEXT(ISA), operand_of, prepare, scratch_bytes, matvec_blocks,
                         matvec_rows,    matmul,     embed,   normalize,     mix,
                         wkv4,           wkv5,       wkv7};

}  // namespace rwkv::cpu::ISA
