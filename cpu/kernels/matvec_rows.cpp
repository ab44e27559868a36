// Products of one token with input_rows weights, whose inputs are mostly zero: ffn.value.
//
// Every output is one chain of fused multiply-adds over the inputs that are not zero, in ascending order.
// Lanes are outputs.
//
// Bytes and operations: a thread reads its outputs of the rows whose inputs are not zero, once, a line of 64
// bytes in 15 cycles; adding it takes 3 instructions for 16 outputs (AVX2: 6, of int4 9). A row is too short
// for the processor to see it coming, so all is asked for, and each row is in a page of its own, whose
// address has to be found: hence rows as long as the thread has outputs. Several rows are added at once to
// sums that wait in the first-level cache, since stores there hold up loads that have the same place in
// their page: eight take 0.8 of the time of four, twelve of bf16 0.9 of eight. What is asked for goes to the
// first-level cache, which has room for the rows to come: for 2048 outputs of int8 Zen 5 takes 0.83 of the
// time that it takes by way of the second-level one, for short rows the same.
#include <algorithm>
#include <cstring>

#include "core/half.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/nonzero.h"

namespace rwkv::cpu::ISA {
namespace {

constexpr int rows_at_once = 12, rows_ahead = 2 * rows_at_once;

// Weight formats, some neighbouring outputs each: add() adds their weights times a factor, or one for each
// scale; put_in_order() stores sums in the order of the outputs.

template <DType dtype, Vec (*load_line)(const std::byte*)>
struct PlainRows {
  static constexpr DType type = dtype;
  static constexpr int vectors = line_bytes / bytes_of(dtype, 16);
  static void add(const std::byte* weights, const float* factors, Vec (&sums)[vectors]) {
    for (int v = 0; v < vectors; v++)
      sums[v] = fma(load_line(weights + bytes_of(dtype, v * 16)), set1(factors[0]), sums[v]);
  }
  static void put_in_order(const float* sums, float* to) { std::copy_n(sums, vectors * 16, to); }
};
using F32Rows = PlainRows<DType::f32, load_f32_line>;
using F16Rows = PlainRows<DType::f16, load_f16_line>;
using BF16Rows = PlainRows<DType::bf16, load_bf16_line>;

struct I8Rows {
  static constexpr DType type = DType::i8;
  static constexpr int vectors = 4;
  static void add(const std::byte* weights, const float* factors, Vec (&sums)[vectors]) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sums[v] = fma(load_i8(weights + v * 16), set1(factors[v / 2]), sums[v]);
  }
  static void put_in_order(const float* sums, float* to) { std::copy_n(sums, vectors * 16, to); }
};

/// Sums have the order of load_i4_apart().
struct I4Rows {
  static constexpr DType type = DType::i4;
  static constexpr int vectors = 4;
  static void add(const std::byte* weights, const float* factors, Vec (&sums)[vectors]) {
    Vec w[vectors];
    load_i4_apart(weights, w);
    const Vec factor = alternate_fours(factors[0], factors[1]);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sums[v] = fma(w[v], factor, sums[v]);
  }
  static void put_in_order(const float* sums, float* to) {
    for (int v = 0; v < vectors; v++) {
      for (int i = 0; i < 16; i++) to[i % 8 * 8 + v * 2 + i / 8] = sums[v * 16 + i];
    }
  }
};

/// The inputs that are not zero, one after the other.
class NonzeroCursor {
 public:
  explicit NonzeroCursor(const PreparedProduct& p) : p_(p) {}

  /// False behind the last one.
  bool next(int64_t& input, float& x) {
    while (place_ == part_.count) {
      first_ += part_inputs;
      if (first_ >= p_.product->x.cols()) return false;
      part_ = nonzero_of(p_, 0, first_);
      place_ = 0;
    }
    input = first_ + part_.places[place_];
    std::memcpy(&x, part_.values + place_ * 4, sizeof x);
    place_++;
    return true;
  }

 private:
  const PreparedProduct& p_;
  NonzeroInputs part_{0, nullptr, nullptr};
  int64_t first_ = -part_inputs, place_ = 0;
};

/// Outputs of a thread whose sums are held at once, at most rows_outputs.
template <class Format>
class Part {
 public:
  Part(const PreparedProduct& p, Range outputs)
      : p_(p),
        m_(layout_of(p.product->weight)),
        row_bytes_(m_.unit_bytes()),
        outputs_(outputs),
        weights_(row_scale_bytes(m_) + bytes_of(Format::type, outputs.begin)),
        bytes_(round_up(bytes_of(Format::type, outputs.end - outputs.begin), chunk_bytes)) {}

  void run() {
    fetch_outputs(*p_.product, {0, 1}, outputs_);
    std::fill_n(sums_, rows_outputs, 0.0f);
    NonzeroCursor here(p_), ahead(p_);
    int64_t input = 0, later = 0;
    float x = 0, unused = 0;
    for (int i = 0; i < rows_ahead; i++) ahead.next(later, unused);
    int count = 0;
    while (here.next(input, x)) {
      ahead.next(later, unused);
      set_row(rows_[count++], input, x, later);
      if (count == rows_at_once) {
        add_rows<rows_at_once>(rows_);
        count = 0;
      }
    }
    for (int r = 0; r < count; r++) add_rows<1>(rows_ + r);
    finish_all();
  }

 private:
  static constexpr int64_t chunk_outputs = Format::vectors * 16;
  static constexpr int64_t chunk_bytes = bytes_of(Format::type, chunk_outputs);
  struct Row {
    const std::byte *weights, *later_weights;
    float factors[rows_outputs / scale_group];
  };

  [[nodiscard]] const std::byte* row_at(int64_t input) const {
    return p_.product->weight.data + input * row_bytes_;
  }

  [[nodiscard]] const std::byte* scales_at(int64_t input) const {
    return row_at(input) + outputs_.begin / scale_group * 2;
  }

  void set_row(Row& to, int64_t input, float x, int64_t later) const {
    to.weights = row_at(input) + weights_;
    to.later_weights = row_at(later) + weights_;
    to.factors[0] = x;
    if constexpr (is_quantized(Format::type)) {
      prefetch_once(scales_at(later));
      for (int64_t g = 0; g * scale_group < outputs_.end - outputs_.begin; g += 16)
        store(to.factors + g, mul(load_bf16(scales_at(input) + g * 2), set1(x)));
    }
  }

  /// Meanwhile asks for those that are read later.
  template <int count>
  void add_rows(const Row* rows) {
    constexpr int64_t factors = is_quantized(Format::type) ? chunk_outputs / scale_group : 0;
    float* sums = sums_;
    for (int64_t at = 0, factor = 0; at < bytes_; at += chunk_bytes, factor += factors) {
      Vec chunk[Format::vectors];
#pragma GCC unroll 8
      for (int v = 0; v < Format::vectors; v++) chunk[v] = load(sums + v * 16);
#pragma GCC unroll 12
      for (int r = 0; r < count; r++) {
        prefetch_once(rows[r].later_weights + at);
        Format::add(rows[r].weights + at, rows[r].factors + factor, chunk);
      }
#pragma GCC unroll 8
      for (int v = 0; v < Format::vectors; v++) store(sums + v * 16, chunk[v]);
      sums += chunk_outputs;
    }
  }

  void finish_all() {
    for (int64_t output = outputs_.begin; output < outputs_.end; output += chunk_outputs) {
      float ordered[chunk_outputs];
      Format::put_in_order(sums_ + output - outputs_.begin, ordered);
      finish_rows(*p_.product, {0, 1}, output, std::min(chunk_outputs, outputs_.end - output), ordered, 0);
    }
  }

  const PreparedProduct& p_;
  const MatrixLayout m_;
  const int64_t row_bytes_;
  const Range outputs_;
  const int64_t weights_, bytes_;  // of a row: where those of these outputs begin, how many they are
  Row rows_[rows_at_once];
  alignas(64) float sums_[rows_outputs];
};

template <class Format>
void multiply(const PreparedProduct& p, Range outputs) {
  for (int64_t at = outputs.begin; at < outputs.end; at += rows_outputs)
    Part<Format>(p, {at, std::min(at + rows_outputs, outputs.end)}).run();
}

}  // namespace

void matvec_rows(const PreparedProduct& p, Range outputs) {
  with_format<F32Rows, F16Rows, BF16Rows, I8Rows, I4Rows>(
      p.product->weight.dtype, [&]<class Format>() { multiply<Format>(p, outputs); });
}

}  // namespace rwkv::cpu::ISA
