// Products of several tokens that take every input, and the table of an instruction set's kernels.
//
// Every output is one chain of multiply-adds over its inputs, in ascending order (pairs of bf16 and tiles:
// the instruction's order within its inputs), so that a token's result does not depend on how many others
// came with it. Lanes are outputs.
//
// Bytes and operations: a tile of tokens and outputs has its sums in registers; per input it loads the
// outputs' weights and broadcasts an input of each token. With AVX-512 that are 4 + 6 loads for 24
// multiply-adds: as few as can be, since a core whose other hyperthread is busy may have little more than one
// load a cycle. The weights of a panel stay in the first-level cache while all tokens pass (those for tiles
// in the second-level one: tiles.h; integers: integer_tiles.h); inputs lie in the order in which a tile reads
// them, since rows of 4 KiB would share one set of the cache, and are asked for one group of tokens ahead,
// since those of a chunk come from the second or third level. Sums wait in memory between panels.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/checked.h"
#include "core/half.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/panel.h"
#if RWKV_INTEGER_PRODUCTS
#include "cpu/kernels/integer_tiles.h"
#endif
#if RWKV_ISA == RWKV_ISA_amx
#include "cpu/kernels/tiles.h"
#endif

namespace rwkv::cpu::ISA {
namespace {

/// One line of weights times the inputs of one token.
template <bool bf16>
Vec add_line(Vec sums, const std::byte* line, const std::byte* x) {
#if RWKV_ISA >= RWKV_ISA_avx512bf16
  if constexpr (bf16) return add_pairs(sums, load_bytes(line), x);
#endif
  return fma(load(reinterpret_cast<const float*>(line)), set1(*reinterpret_cast<const float*>(x)), sums);
}

/// A group of `tokens` tokens gets the panel's inputs, for `blocks` of its blocks from `block` on, and asks
/// for those of the next group, at `next`. Unrolled, so that the compiler keeps the sums in registers.
template <bool bf16, int blocks, int tokens>
void multiply_tile(const Panel& panel, int64_t block, const std::byte* x, const std::byte* next,
                   float* sums) {
  const int64_t lines = bf16 ? panel.inputs / 2 : panel.inputs;
  sums += block * block_outputs;
  // One number steps through all blocks, up to zero, and one pointer through both groups: that is all that
  // the loop has beside loads and multiply-adds.
  const std::byte* ends[blocks];
  for (int b = 0; b < blocks; b++) ends[b] = panel.blocks[block + b] + lines * line_bytes;
  const std::ptrdiff_t to_next = next - x;
  Vec acc[tokens][blocks];
#pragma GCC unroll 16
  for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++)
      acc[t][b] = panel.first == 0 ? set1(0) : load(sums + t * panel_outputs + b * 16);
  }
  for (int64_t at = -lines * line_bytes; at != 0; at += line_bytes, x += tokens * 4) {
    prefetch(x + to_next);
#pragma GCC unroll 16
    for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
      for (int b = 0; b < blocks; b++) acc[t][b] = add_line<bf16>(acc[t][b], ends[b] + at, x + t * 4);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) store(sums + t * panel_outputs + b * 16, acc[t][b]);
  }
}

using Tile = void (*)(const Panel& panel, int64_t block, const std::byte* x, const std::byte* next,
                      float* sums);

template <Operand operand, int blocks, int tokens>
constexpr Tile tile_of() {
#if RWKV_INTEGER_PRODUCTS
  if constexpr (operand == Operand::several_integers) return multiply_integer_tile<blocks, tokens>;
#endif
  return multiply_tile<operand == Operand::bf16, blocks, tokens>;
}

template <Operand operand, int blocks, int... fewer>
constexpr std::array<Tile, sizeof...(fewer)> tiles_of(std::integer_sequence<int, fewer...>) {
  return {tile_of<operand, blocks, fewer + 1>()...};
}

template <Operand operand, int... fewer>
constexpr std::array<std::array<Tile, tile_tokens>, sizeof...(fewer)> all_tiles(
    std::integer_sequence<int, fewer...>) {
  return {tiles_of<operand, fewer + 1>(std::make_integer_sequence<int, int{tile_tokens}>())...};
}

/// [blocks - 1][tokens - 1]
template <Operand operand>
constexpr auto tiles = all_tiles<operand>(std::make_integer_sequence<int, int{tile_blocks}>());

/// begin(tokens) and end(tokens) are called around each group, whose inputs stay in the first-level cache for
/// all blocks.
template <Operand operand, class Begin, class End>
void multiply_by_vectors(const Panel& panel, const PreparedProduct& p, float* sums, Begin begin, End end) {
  const int64_t tokens = p.product->x.rows();
  const int64_t token_bytes = grouped_bytes(operand, round_up(p.product->x.cols(), 64));
  const int64_t bytes_before = grouped_bytes(operand, panel.first);
  auto group_from = [tokens](int64_t first) { return Range{first, std::min(first + tile_tokens, tokens)}; };
  auto inputs_of = [&](Range group) {
    return p.x + group.begin * token_bytes + bytes_before * (group.end - group.begin);
  };
  for (Range group = group_from(0); group.begin < tokens; group = group_from(group.end)) {
    const std::byte* x = inputs_of(group);
    const std::byte* next = group.end < tokens ? inputs_of(group_from(group.end)) : x;
    begin(group);
    for (int64_t block = 0, blocks = 0; block < panel.count; block += blocks) {
      blocks = std::min(tile_blocks, panel.count - block);
      const Tile tile = tiles<operand>[static_cast<size_t>(blocks - 1)][group.end - group.begin - 1];
      tile(panel, block, x, next, sums + group.begin * panel_outputs);
    }
    end(group);
  }
}

template <class Begin, class End>
void multiply_all(const Panel& panel, const PreparedProduct& p, float* sums, Begin begin, End end) {
#if RWKV_ISA == RWKV_ISA_amx
  if (p.operand == Operand::bf16_tiles) return multiply_by_tiles(panel, p, sums, begin, end);
#endif
  if constexpr (bf16_products) {
    if (p.operand == Operand::bf16) return multiply_by_vectors<Operand::bf16>(panel, p, sums, begin, end);
  }
  if constexpr (integer_products) {
    if (p.operand == Operand::several_integers)
      return multiply_by_vectors<Operand::several_integers>(panel, p, sums, begin, end);
  }
  multiply_by_vectors<Operand::f32>(panel, p, sums, begin, end);
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
    for (int64_t block = first_block; block < end_block_; block += blocks_at_once(p_.operand)) {
      if (m_.inputs == 0) {
        std::fill_n(sums_, tokens() * panel_outputs, 0.0f);
        finish(block, {0, tokens()});
      }
      const int64_t step = panel_inputs(p_.operand);
      for (int64_t first = 0; first < m_.inputs; first += step) add_panel(block, first, step);
    }
  }

 private:
  [[nodiscard]] int64_t tokens() const { return p_.product->x.rows(); }
  [[nodiscard]] int64_t blocks_from(int64_t block) const {
    return std::min(blocks_at_once(p_.operand), end_block_ - block);
  }

  /// Asks for the panel after this one while this one is multiplied by vectors, and when it is the last one
  /// of its outputs for these, and stores them as soon as a group of tokens has its sums.
  void add_panel(int64_t block, int64_t first, int64_t step) {
    const Panel panel = make_panel(m_, weights_, p_.operand, block, blocks_from(block), first, scratch_);
    const bool last = first + step >= m_.inputs;
    Pieces ahead[panel_blocks];
    // Tiles need the few buffers for misses themselves, for what comes from the second-level cache.
    if (p_.operand != Operand::bf16_tiles) find_next_panel(block, first + step, ahead);
    auto begin = [&](Range group) {
      for (const Pieces& pieces : ahead) pieces.fetch(group.begin, group.end, tokens());
      const int64_t output = block * block_outputs;
      if (last) fetch_outputs(*p_.product, group, {output, output + outputs_from(block)});
    };
    multiply_all(panel, p_, sums_, begin, [&](Range group) {
      if (last) finish(block, group);
    });
  }

  /// Of the panel after the one of `block` that ends before input `first`: the rest of these blocks, or as
  /// many that follow, though another thread may get them.
  void find_next_panel(int64_t block, int64_t first, Pieces (&pieces)[panel_blocks]) const {
    int64_t blocks = blocks_from(block);
    if (first >= m_.inputs) {
      block += blocks;
      first = 0;
      blocks = std::min(blocks, (m_.outputs + block_outputs - 1) / block_outputs - block);
    }
    if (blocks > 0) find_pieces(m_, weights_, p_.operand, block, blocks, first, pieces);
  }

  [[nodiscard]] int64_t outputs_from(int64_t block) const {
    return std::min(blocks_from(block) * block_outputs, m_.outputs - block * block_outputs);
  }

  void finish(int64_t block, Range group) const {
    if (p_.operand == Operand::several_integers) leave_integers(block, group);
    finish_rows(*p_.product, group, block * block_outputs, outputs_from(block),
                sums_ + group.begin * panel_outputs, panel_outputs);
  }

  /// Sums in integer_sum_unit become floats. Those that are not finite are computed anew, from the inputs as
  /// they are: scales know no infinity.
  void leave_integers(int64_t block, Range group) const {
    for (int64_t t = group.begin; t < group.end; t++) {
      for (int64_t b = 0; b < blocks_from(block); b++) {
        float* sums = sums_ + t * panel_outputs + b * block_outputs;
        const Vec sum = mul(load(sums), set1(integer_sum_unit));
        store(sums, nonzero_lanes(sub(sum, sum)) == 0 ? sum : multiply_floats(block + b, t));
      }
    }
  }

  [[nodiscard]] Vec multiply_floats(int64_t block, int64_t token) const {
    const float* x = p_.product->x.row(token);
    Vec sum = set1(0);
    auto add = [&](const auto& source) {
      for (int64_t i = 0; i < m_.inputs; i += 4) {
        Vec w[4];
        source.quad(block, i, w);
        for (int64_t j = 0; j < std::min<int64_t>(4, m_.inputs - i); j++)
          sum = fma(w[j], set1(x[i + j]), sum);
      }
    };
    switch (m_.dtype) {
      case DType::i4:
        add(IntegerBlocks<DType::i4>{m_, weights_});
        break;
      case DType::i8:
        add(IntegerBlocks<DType::i8>{m_, weights_});
        break;
      default:
        m_.layout == Layout::cpu_coded ? add(CodedBlocks{m_, weights_}) : add(BF16Blocks{m_, weights_});
    }
    return sum;
  }

  const PreparedProduct& p_;
  const MatrixLayout m_;
  const std::byte* weights_;
  int64_t end_block_;
  std::byte* scratch_;
  float* sums_;  // [tokens][panel_outputs]
};

}  // namespace

// Of matmul_rows.cpp.
int64_t rows_scratch_bytes(int64_t tokens);
void matmul_rows(const PreparedProduct& p, Range blocks, std::byte* scratch);

namespace {

void matmul(const PreparedProduct& p, Range blocks, std::byte* scratch) {
  if (is_nonzero(p.operand)) return matmul_rows(p, blocks, scratch);
#if RWKV_ISA == RWKV_ISA_amx
  const TileConfiguration configuration;
#endif
  BlocksProduct(p, blocks.end, scratch).run(blocks.begin);
}

int64_t scratch_bytes(int64_t tokens) {
  return std::max(panel_bytes + round_up(tokens, operand_tile_tokens) * panel_outputs * 4,
                  rows_scratch_bytes(tokens));
}

}  // namespace

// The rest of the table is in inputs.cpp, matvec.cpp, recurrence.cpp, rows.cpp and vocabulary.cpp.
Operand operand_of(const Tensor& weight, int64_t tokens);
int64_t operand_group(Operand operand);
bool prepare(const Tensor& x, Operand operand, Range tokens, std::byte* out);
void matvec_blocks(const PreparedProduct& p, Range blocks);
void matvec_rows(const PreparedProduct& p, Range outputs);
void embed(float* out, const std::byte* row, DType dtype, int64_t width);
void normalize(float* out, const float* x, const Norm& norm, int64_t width);
void mix(const TokenShift& shift, int64_t t);
void wkv4(const Wkv4& wkv, Range channels);
void wkv5(const Wkv5& wkv, Range heads);
void wkv7(const Wkv7& wkv, Range heads);
bool all_in_range(std::span<const float> values, float lower, float upper);
float maximum(std::span<const float> values);
void softmax(std::span<const float> logits, float max, float* result);
int64_t find_in_range(std::span<const float> values, float lower, float upper, int32_t* indices);

#define RWKV_TEXT_(name) #name
#define RWKV_TEXT(name) RWKV_TEXT_(name)
const Kernels kernels = {RWKV_TEXT(ISA), operand_of, operand_group, prepare,   scratch_bytes, matvec_blocks,
                         matvec_rows,    matmul,     embed,         normalize, mix,           wkv4,
                         wkv5,           wkv7,       all_in_range,  maximum,   softmax,       find_in_range};

}  // namespace rwkv::cpu::ISA
