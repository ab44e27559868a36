// Products of one token with blocks of weights; matvec_rows.cpp has those of rows.
//
// Every output is one chain of fused multiply-adds over its inputs in ascending order (integers: exact sums
// of the products of 32 inputs, scaled, then added up). Lanes are outputs: no horizontal sums, one broadcast
// input per line of weights.
//
// Bytes and operations: a product reads its weights once, outputs * inputs * 2 bytes for bf16, and does one
// multiply-add per weight; 64-byte lines at 32 GB/s and 3.7 GHz leave a core 7 cycles a line, and a bf16 line
// costs 2 to 4 instructions.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/half.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/coded.h"
#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/operand.h"

namespace rwkv::cpu::ISA {
namespace {

// How weights are asked for: a request for so many bytes, `distance` ahead of what is read. Loads want a
// constant stride, so the loops over a step's lines are unrolled: otherwise Zen 4 gets 23 GB/s.
constexpr int64_t pair_bytes = 128;

/// A Xeon decodes 1.04 to 1.19 times as fast as with a request for one of two lines.
struct LineRequests {
  static constexpr int64_t bytes = line_bytes, distance = 6144;
  static void ask(const std::byte* p) { prefetch_l2(p); }
};
/// AMD before Zen 5: the processor's own prefetching, which ends with each page, fetches the other lines, and
/// each request holds one of the few buffers for misses as long as the memory takes: a core of Zen 4 gets 31
/// GB/s of int8 so, and 21 by asking for every line.
struct PairRequests {
  static constexpr int64_t bytes = pair_bytes, distance = 6144;
  static void ask(const std::byte* p) { prefetch_l2(p); }
};
/// Zen 5: a core reads int8 1.15 times as fast (AVX2: 1.33) as with PairRequests. Weights that pass by the
/// third-level cache leave it to the state: 0.93 to 1.01 of a token's time with LineRequests.
struct PassingRequests {
  static constexpr int64_t bytes = line_bytes, distance = 8192;
  static void ask(const std::byte* p) { prefetch_once(p); }
};

template <class Function>
void with_requests(Function function) {
  if (!__builtin_cpu_is("amd")) return function.template operator()<LineRequests>();
  const bool before_zen5 = __builtin_cpu_is("amdfam17h") || __builtin_cpu_is("amdfam19h");
  before_zen5 ? function.template operator()<PairRequests>()
              : function.template operator()<PassingRequests>();
}

/// Of one block, or of each of several that are read at once.
template <class Kind, size_t streams>
struct Asked : Kind {
  static constexpr int64_t ahead = streams == 1 ? Kind::distance : Kind::distance / 2;
};

template <class Requests>
void ask_for_pair(const std::byte* weights) {
  for (int64_t at = 0; at < pair_bytes; at += Requests::bytes) Requests::ask(weights + Requests::ahead + at);
}

/// For groups of cpu_coded: three lines; with requests for pairs, all pairs of two groups.
template <class Requests>
void ask_for_group(const std::byte* group, int64_t index) {
  const int64_t first = Requests::bytes == line_bytes ? 0 : index % 2 * line_bytes;
  for (int64_t at = first; at < group_bytes; at += Requests::bytes)
    Requests::ask(group + Requests::ahead + at);
}

// Weight formats of cpu_blocks, of which so many are multiplied at once (multiply()). step(sum, w, x) adds
// the products of one step of a block's inputs; a step that is longer than a pair of lines asks for what
// follows itself.

// One input a step.
template <int64_t step_bytes, Vec (*load_line)(const std::byte*)>
struct SingleBlocks {
  static constexpr size_t at_once = 2;
  static constexpr int64_t inputs = 1, bytes = step_bytes, input_bytes = 4;
  template <class Requests>
  static Vec step(Vec sum, const std::byte* w, const std::byte* x) {
    return fma(load_line(w), set1(*reinterpret_cast<const float*>(x)), sum);
  }
};
using F32Blocks = SingleBlocks<64, load_f32_line>;
using F16Blocks = SingleBlocks<32, load_f16_line>;

// Two inputs a line: pairs of bf16, or fp32.
template <bool pairs>
struct BF16Blocks {
  static constexpr size_t at_once = 2;
  static constexpr int64_t inputs = 2, bytes = 64, input_bytes = pairs ? 2 : 4;
  static Vec add_line(Vec sum, const Bytes& line, const std::byte* x) {
#if RWKV_ISA >= RWKV_ISA_avx512bf16
    if constexpr (pairs) return add_pairs(sum, line, x);
#endif
    Vec first, second;
    widen_pairs(line, first, second);
    const auto* input = reinterpret_cast<const float*>(x);
    return fma(second, set1(input[1]), fma(first, set1(input[0]), sum));
  }
  template <class Requests>
  static Vec step(Vec sum, const std::byte* w, const std::byte* x) {
    return add_line(sum, load_bytes(w), x);
  }
};

template <class Requests>
auto read_line_of(const std::byte* step) {
  return [step](int64_t offset) {
    if (offset % pair_bytes == 0) ask_for_pair<Requests>(step + offset);
    return step + offset;
  };
}

// One step is 64 inputs, two groups of 32.
template <DType type>
struct IntegerBlocks {
  static constexpr size_t at_once = 1;
  static constexpr int64_t inputs = step_inputs, bytes = step_bytes(type),
                           input_bytes = sizeof(IntegerStep) / step_inputs;
  template <class Requests>
  static Vec step(Vec sum, const std::byte* w, const std::byte* x) {
    const auto& step = *reinterpret_cast<const IntegerStep*>(x);
#pragma GCC unroll 2
    for (int64_t group = 0; group < 2; group++) {
      IntegerSums products = no_sums(step.excess[group]);
#pragma GCC unroll 4
      for (int64_t pair = group * 4; pair < group * 4 + 4; pair++) {
        Bytes lines[2];
        load_lines<type>(pair, read_line_of<Requests>(w), lines);
        add_products(products, lines[0], step.inputs[2 * pair]);
        add_products(products, lines[1], step.inputs[2 * pair + 1]);
      }
      sum = fma(load_bf16(w + group * 32), mul(to_vec(products), set1(step.scale[group])), sum);
    }
    return sum;
  }
};

template <class Format>
constexpr float sum_unit = 1;
template <DType type>
constexpr float sum_unit<IntegerBlocks<type>> = integer_sum_unit;

// The same with fp32 inputs.
template <DType type>
struct WidenedBlocks {
  static constexpr size_t at_once = 1;
  static constexpr int64_t inputs = step_inputs, bytes = step_bytes(type), input_bytes = 4;
  template <class Requests>
  static Vec step(Vec sum, const std::byte* w, const std::byte* x) {
    const auto* input = reinterpret_cast<const float*>(x);
    for (int64_t pair = 0; pair < 8; pair++) {
      Bytes lines[2];
      load_lines<type>(pair, read_line_of<Requests>(w), lines);
      const Vec scale = load_bf16(w + pair / 4 * 32);
      for (int line = 0; line < 2; line++) {
        Vec weights[4];
        widen(lines[line], scale, weights);
        for (int j = 0; j < 4; j++) sum = fma(weights[j], set1(input[pair * 8 + line * 4 + j]), sum);
      }
    }
    return sum;
  }
};

/// Blocks of cpu_blocks, a few steps of each in turns.
template <class Format, class Kind>
struct PlainBlocks {
  static constexpr size_t at_once = Format::at_once;
  /// Not inlined: among what surrounds its loop g++ 12 keeps half of an AVX2 sum in memory.
  template <size_t count>
  [[gnu::noinline]] static void sum(std::array<const std::byte*, count> w, const std::byte* x, int64_t inputs,
                                    Vec (&out)[count]) {
    using Requests = Asked<Kind, count>;
    constexpr int64_t steps = std::max<int64_t>(1, pair_bytes / Format::bytes);  // of a pair of lines
    Vec sums[count];
    for (Vec& sum : sums) sum = set1(0);
    const auto add_step = [&](size_t b, int64_t s) {
      sums[b] = Format::template step<Requests>(sums[b], w[b] + s * Format::bytes,
                                                x + s * Format::inputs * Format::input_bytes);
    };
    int64_t left = (inputs + Format::inputs - 1) / Format::inputs;
    for (; left >= steps; left -= steps) {
#pragma GCC unroll 2
      for (size_t b = 0; b < count; b++) {
        if (steps > 1) ask_for_pair<Requests>(w[b]);
#pragma GCC unroll 4
        for (int64_t s = 0; s < steps; s++) add_step(b, s);
        w[b] += steps * Format::bytes;
      }
      x += steps * Format::inputs * Format::input_bytes;
    }
    for (size_t b = 0; b < count; b++) {
      for (int64_t s = 0; s < left; s++) add_step(b, s);
      out[b] = mul(sums[b], set1(sum_unit<Format>));
    }
  }
};

/// Blocks of cpu_coded, a group of each in turns: what decodes one goes on while others wait for their sums.
template <bool pairs, class Kind>
struct CodedBlocks {
  static constexpr size_t at_once = RWKV_ISA <= RWKV_ISA_avxvnni ? 3 : 2;
  template <size_t count>
  static void sum(std::array<const std::byte*, count> segments, const std::byte* x, int64_t inputs,
                  Vec (&sums)[count]) {
    add_up<Asked<Kind, count>>(segments, x, inputs, sums, std::make_index_sequence<count>());
  }

 private:
  /// Not by loops over blocks: from those g++ 12 keeps the sums in memory.
  template <class Requests, size_t count, size_t... b>
  static void add_up(std::array<const std::byte*, count> segments, const std::byte* x, int64_t inputs,
                     Vec (&sums)[count], std::index_sequence<b...>) {
    ((sums[b] = set1(0)), ...);
    for (int64_t first = 0; first < inputs; first += segment_inputs) {
      SegmentReader readers[] = {SegmentReader(segments[b], 0)...};
      (Requests::ask(segments[b] + Requests::ahead), ...);  // the line of a head, which no group asks for
      ((segments[b] += segment_bytes), ...);
      const int64_t groups = groups_of(std::min(segment_inputs, inputs - first));
      for (int64_t g = 0; g < groups; g++, x += group_inputs * BF16Blocks<pairs>::input_bytes)
        (add_group<Requests>(readers[b], g, x, sums[b]), ...);
    }
  }

  template <class Requests>
  [[gnu::always_inline]] static void add_group(SegmentReader& reader, int64_t index, const std::byte* x,
                                               Vec& sum) {
    using Format = BF16Blocks<pairs>;
    ask_for_group<Requests>(reader.group(), index);
    reader.read_group([&](const Bytes& line) {
      sum = Format::add_line(sum, line, x);
      x += Format::inputs * Format::input_bytes;
    });
  }
};

template <class Blocks, size_t count>
void multiply(const PreparedProduct& p, const std::array<int64_t, count>& blocks) {
  const Product& product = *p.product;
  const MatrixLayout m = layout_of(product.weight);
  std::array<const std::byte*, count> w;
  for (size_t b = 0; b < count; b++) {
    w[b] = product.weight.data + blocks[b] * m.unit_bytes();
    fetch_outputs(product, {0, 1}, {blocks[b] * block_outputs, (blocks[b] + 1) * block_outputs});
  }
  Vec sums[count];
  Blocks::template sum<count>(w, p.x, m.inputs, sums);
  for (size_t b = 0; b < count; b++) {
    const int64_t output = blocks[b] * block_outputs;
    finish(product, 0, output, std::min(block_outputs, m.outputs - output), sums[b]);
  }
}

/// The next blocks, from so many parts of the same length at once.
template <class Blocks, size_t parts>
void multiply_parts(const PreparedProduct& p, Range& blocks, int64_t length) {
  for (int64_t first = blocks.begin; first < blocks.begin + length; first++) {
    std::array<int64_t, parts> at;
    for (size_t b = 0; b < parts; b++) at[b] = first + static_cast<int64_t>(b) * length;
    multiply<Blocks>(p, at);
  }
  blocks.begin += static_cast<int64_t>(parts) * length;
}

/// Where each addition waits for the one before, blocks of two or three parts at once, so that all are read
/// without a gap. For bf16 with AVX2 two take 0.8 of the time of one at a time on Zen 5, three 0.90 to 1.03
/// of that. Integers, whose sums are short, and short pieces, which begin too often, are faster in one
/// stream.
template <class Blocks>
void multiply(const PreparedProduct& p, Range blocks) {
  constexpr int64_t shortest = 64 << 10;
  const auto left = [&] { return blocks.end - blocks.begin; };
  if (left() >= 2 && left() * layout_of(p.product->weight).unit_bytes() >= shortest) {
    // None is left alone.
    if constexpr (Blocks::at_once == 3)
      multiply_parts<Blocks, 3>(p, blocks, left() % 3 == 1 ? left() / 3 - 1 : left() / 3);
    if constexpr (Blocks::at_once >= 2) multiply_parts<Blocks, 2>(p, blocks, left() / 2);
  }
  multiply_parts<Blocks, 1>(p, blocks, left());
}

}  // namespace

void matvec_blocks(const PreparedProduct& p, Range blocks) {
  const DType type = p.product->weight.dtype;
  with_requests([&]<class Kind>() {
    if (p.product->weight.layout == Layout::cpu_coded) {
      return p.operand == Operand::bf16 ? multiply<CodedBlocks<bf16_products, Kind>>(p, blocks)
                                        : multiply<CodedBlocks<false, Kind>>(p, blocks);
    }
    auto run = [&]<class Format>() { multiply<PlainBlocks<Format, Kind>>(p, blocks); };
    if (p.operand == Operand::integers) {
      return type == DType::i4 ? run.template operator()<IntegerBlocks<DType::i4>>()
                               : run.template operator()<IntegerBlocks<DType::i8>>();
    }
    if (p.operand == Operand::bf16) return run.template operator()<BF16Blocks<bf16_products>>();
    with_format<F32Blocks, F16Blocks, BF16Blocks<false>, WidenedBlocks<DType::i8>, WidenedBlocks<DType::i4>>(
        type, run);
  });
}

}  // namespace rwkv::cpu::ISA
