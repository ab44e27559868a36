// Products of several tokens with input_rows weights, whose inputs are mostly zero: ffn.value.
//
// As for one token, the rows of inputs that are zero are passed over, for each token those of its own. Every
// output is one chain of multiply-adds (bf16: of two inputs at once; integers: of a part) over the inputs of
// its token that are not zero, in ascending order, part after part, so that a token's result does not depend
// on how many others came with it. Lanes are outputs.
//
// Bytes and operations: the rows of a part, for some neighbouring outputs, are widened or copied once for
// all tokens into a panel of 64 KiB (AVX2: 32), from which each input that is not zero loads its row, 64
// bytes for 32 outputs, mostly from the second-level cache. That takes 11 cycles for 128 outputs with
// AVX-512, 8 of them for shifts, `and`s and multiply-adds (integers: 8 for two inputs); a list and the sums,
// which wait in memory between panels, 120 cycles for 38 inputs. The product of blocks, which takes every
// input, has the peak's one or two multiply-adds a cycle: at 85% zeros this takes 0.35 to 0.45 of its time.
// Sums and panels fill less than half of the second-level cache with 512 tokens.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/checked.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/nonzero.h"
#include "cpu/kernels/rows_panel.h"

namespace rwkv::cpu::ISA {
namespace {

constexpr int64_t lists_ahead = 2;     ///< tokens: lists come from the third-level cache
constexpr int64_t stored_at_once = 8;  ///< tokens

/// Adds a part of a token's inputs to its sums. Not inlined: among what surrounds it g++ 12 keeps lines in
/// memory.
template <class Format, int vectors>
[[gnu::noinline]] void add_inputs(const std::byte* panel, const NonzeroInputs& x, bool fresh, float* to) {
  Vec sums[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; v++) sums[v] = fresh ? set1(0) : load(to + v * 16);
  Format::add(panel, x, sums);
#pragma GCC unroll 8
  for (int v = 0; v < vectors; v++) store(to + v * 16, sums[v]);
}

/// Some neighbouring outputs of a product, at most as many as a panel has.
template <class Format>
class Strip {
 public:
  Strip(const PreparedProduct& p, Range outputs, std::byte* scratch)
      : p_(p),
        rows_{layout_of(p.product->weight), p.product->weight.data},
        outputs_(outputs),
        panel_(scratch),
        sums_(reinterpret_cast<float*>(scratch + rows_panel_bytes + rows_scales_bytes)) {}

  /// `next`: the outputs after these.
  template <int vectors>
  void run(Range next) {
    const int64_t inputs = rows_.m.inputs;
    if (inputs == 0) {
      std::fill_n(sums_, tokens() * Format::outputs, 0.0f);
      finish({0, tokens()});
    }
    for (int64_t first = 0; first < inputs; first += part_inputs) {
      const Range part{first, std::min(first + part_inputs, inputs)};
      Format::template make<vectors>(rows_, part, outputs_.begin, panel_);
      const bool last = part.end == inputs;
      const int64_t ahead = last ? 0 : part.end;
      add_part<vectors>(
          part, last,
          pieces_of_rows(rows_, last ? next : outputs_, {ahead, std::min(ahead + part_inputs, inputs)}));
    }
  }

 private:
  [[nodiscard]] int64_t tokens() const { return p_.product->x.rows(); }
  [[nodiscard]] float* sums_of(int64_t token) const { return sums_ + token * Format::outputs; }

  /// Meanwhile asks for `ahead`, the rows of the panel after this one, and with the last one for what the
  /// sums are added to.
  template <int vectors>
  void add_part(Range part, bool last, const Pieces& ahead) const {
    for (Range group{0, 0}; group.begin < tokens(); group.begin = group.end) {
      group.end = std::min(group.begin + stored_at_once, tokens());
      if (last) fetch_outputs(*p_.product, group, outputs_);
      for (int64_t t = group.begin; t < group.end; t++) {
        ahead.fetch(t, t + 1, tokens());
        const int64_t later = std::min(t + lists_ahead, tokens() - 1);
        fetch_list(list_at(p_.x, p_.product->x, later, part.begin, p_.operand), p_.operand, prefetch);
        add_part_of<vectors>(t, part);
      }
      if (last) finish(group);
    }
  }

  template <int vectors>
  void add_part_of(int64_t token, Range part) const {
    const NonzeroInputs x = nonzero_of(p_, token, part.begin);
    if (std::isnan(x.scale)) [[unlikely]]
      return add_floats<vectors>(token, part);
    add_inputs<Format, vectors>(panel_, x, part.begin == 0, sums_of(token));
  }

  /// From the inputs as they are: scales know no infinity.
  template <int vectors>
  void add_floats(int64_t token, Range part) const {
    for (int v = 0; v < vectors; v++) {
      float* to = sums_of(token) + v * 16;
      Vec sum = part.begin == 0 ? set1(0) : load(to);
      for (int64_t i = part.begin; i < part.end; i++) {
        const float x = p_.product->x.row(token)[i];
        if (x != 0) sum = fma(rows_.row_or_zero(rows_.at(i), outputs_.begin + v * 16), set1(x), sum);
      }
      store(to, sum);
    }
  }

  void finish(Range group) const {
    finish_rows(*p_.product, group, outputs_.begin, outputs_.end - outputs_.begin, sums_of(group.begin),
                Format::outputs);
  }

  const PreparedProduct& p_;
  const Rows rows_;
  Range outputs_;
  std::byte* panel_;  // [part_inputs][Format::outputs]
  float* sums_;       // [tokens][Format::outputs]
};

template <class Format>
void multiply(const PreparedProduct& p, Range outputs, std::byte* scratch) {
  auto strip_at = [](int64_t begin, int64_t end) {
    return Range{begin, std::min(begin + Format::outputs, end)};
  };
  for (int64_t at = outputs.begin; at < outputs.end; at += Format::outputs) {
    const Range here = strip_at(at, outputs.end);
    const Range next = strip_at(here.end, p.product->out.cols());  // though another thread may get it
    Strip<Format> strip(p, here, scratch);
    if (here.end - here.begin > Format::outputs / 2) {
      strip.template run<Format::vectors>(next);
    } else {
      strip.template run<Format::vectors / 2>(next);
    }
  }
}

}  // namespace

int64_t rows_scratch_bytes(int64_t tokens) {
  return rows_panel_bytes + rows_scales_bytes + tokens * widest_rows_panel * 4;
}

void matmul_rows(const PreparedProduct& p, Range blocks, std::byte* scratch) {
  const Range outputs{blocks.begin * block_outputs,
                      std::min(blocks.end * block_outputs, p.product->out.cols())};
#if RWKV_ISA >= RWKV_ISA_avx512bf16
  if (p.operand == Operand::nonzero_bf16) return multiply<BF16RowsPanel>(p, outputs, scratch);
#endif
#if RWKV_INTEGER_PRODUCTS
  if (p.operand == Operand::nonzero_integers) return multiply<IntegerRowsPanel>(p, outputs, scratch);
#endif
  const DType type = p.product->weight.dtype;
  if (type == DType::bf16) return multiply<PairRowsPanel<false>>(p, outputs, scratch);
  if (is_quantized(type)) return multiply<PairRowsPanel<true>>(p, outputs, scratch);
  multiply<F32RowsPanel>(p, outputs, scratch);
}

}  // namespace rwkv::cpu::ISA
