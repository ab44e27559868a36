// Inputs of products, laid out as the kernels read them: once for all outputs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/checked.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"
// Last: it selects the instruction set.
#include "cpu/kernels/integers.h"
#include "cpu/kernels/nonzero.h"

namespace rwkv::cpu::ISA {
namespace {

/// Sixteen inputs from `input` on, zero behind the last one.
Vec some_inputs(const float* x, int64_t count, int64_t input) {
  const int64_t rest = std::clamp<int64_t>(count - input, 0, 16);
  return rest == 16 ? load(x + input) : load_part(x + input, rest);
}

/// Inputs from `input` on as sixteen words: fp32, or pairs of bf16.
Vec some_words(const float* x, int64_t count, int64_t input, Operand operand) {
  const Vec inputs = some_inputs(x, count, input);
  if (operand == Operand::f32) return inputs;
#if RWKV_ISA >= RWKV_ISA_avx512bf16
  if (operand == Operand::bf16) return bf16_words(inputs, some_inputs(x, count, input + 16));
#endif
  return round_to_bf16(inputs);
}

/// Sixteen words of each of `count` tokens, word after word; returns where it ends.
float* store_words(float* to, const Vec (&words)[most_columns], int64_t count) {
  // Places that are written four calls later.
  for (int64_t i = 0; i < 16 * count; i += 16) prefetch_to_write(to + 64 * count + i);
  count == 1 ? store(to, words[0]) : store_columns(to, words, count);
  return to + 16 * count;
}

/// All inputs of a group of tokens, word after word.
void prepare_words(const Tensor& x, Operand operand, Range group, std::byte* out) {
  const int64_t count = group.end - group.begin, step = operand == Operand::bf16 ? 32 : 16;
  auto* to = reinterpret_cast<float*>(out);
  Vec words[most_columns];
  for (Vec& v : words) v = set1(0);
  for (int64_t i = 0; i < round_up(x.cols(), 64); i += step) {
    for (int64_t t = 0; t < count; t++) words[t] = some_words(x.row(group.begin + t), x.cols(), i, operand);
    to = store_words(to, words, count);
  }
}

void prepare_tile_lines(const float* x, int64_t count, std::byte* out) {
  for (int64_t i = 0; i < round_up(count, 64); i += 16)
    store_bf16(out + i / 32 * 1024 + i % 32 * 2, some_inputs(x, count, i));
}

/// What shares a scale, in the range of integers.
template <int vectors>
struct ScaledInputs {
  Vec inputs[vectors];
  float scale;  ///< in integer_sum_unit; NaN, and inputs zero, when one of them is not finite
};

template <int vectors>
ScaledInputs<vectors> scale_inputs(const float* x, int64_t count, int64_t input) {
  // Sums of 32 products with int8, or of 64 with weight_bits, are to have 31 bits.
  constexpr float largest = vectors == 2 ? 127 * 256 + 127 : (1 << (31 - 6 - weight_bits)) - 1;
  constexpr float smallest = 0x1p-100f;  // less is taken as zero
  ScaledInputs<vectors> scaled{};
  float highest = 0;
  bool finite = true;
  for (int v = 0; v < vectors; v += 2) {
    scaled.inputs[v] = some_inputs(x, count, input + v * 16);
    scaled.inputs[v + 1] = some_inputs(x, count, input + v * 16 + 16);
    const float here = largest_magnitude(scaled.inputs[v], scaled.inputs[v + 1]);
    finite = finite && here <= std::numeric_limits<float>::max();
    highest = std::max(highest, here);
  }
  const Vec inverse = set1(finite && highest >= smallest ? largest / highest : 0);
  for (Vec& v : scaled.inputs) v = finite ? mul(v, inverse) : set1(0);
  scaled.scale = finite ? highest / (largest * integer_sum_unit) : std::numeric_limits<float>::quiet_NaN();
  return scaled;
}

/// The `group`-th part of a step. False when inputs are not finite.
bool prepare_integers(const ScaledInputs<2>& scaled, int group, IntegerStep& step) {
  for (int half = 0; half < 2; half++) arrange_inputs(scaled.inputs[half], step.inputs[group * 8 + half * 4]);
  step.scale[group] = scaled.scale;
  const float total = sum(add(round_nearest(scaled.inputs[0]), round_nearest(scaled.inputs[1])));
  step.excess[group] = 128 * static_cast<int32_t>(total);
  return !std::isnan(scaled.scale);
}

bool prepare_integers(const float* x, int64_t count, std::byte* out) {
  bool finite = true;
  auto* steps = reinterpret_cast<IntegerStep*>(out);
  for (int64_t i = 0; i < round_up(count, step_inputs); i += scale_group) {
    const auto group = static_cast<int>(i % step_inputs / scale_group);
    finite = prepare_integers(scale_inputs<2>(x, count, i), group, steps[i / step_inputs]) && finite;
  }
  return finite;
}

#if RWKV_INTEGER_PRODUCTS
/// All inputs of a group of tokens, those that share a scale after each other (integers.h).
void prepare_integers(const Tensor& x, Range group, std::byte* out) {
  constexpr int vectors = integer_group / 16;
  const int64_t count = group.end - group.begin;
  auto* to = reinterpret_cast<float*>(out);
  Vec words[vectors / 2][most_columns];
  for (auto& part : words) std::fill_n(part, most_columns, set1(0));
  for (int64_t i = 0; i < round_up(x.cols(), step_inputs); i += vectors * 16) {
    for (int64_t t = 0; t < count; t++) {
      const auto scaled = scale_inputs<vectors>(x.row(group.begin + t), x.cols(), i);
      *to++ = scaled.scale;
      for (int part = 0; part < vectors / 2; part++)
        words[part][t] = integer_words(scaled.inputs[2 * part], scaled.inputs[2 * part + 1]);
    }
    for (const auto& part : words) to = store_words(to, part, count);
  }
}
#endif

#if RWKV_INTEGER_PRODUCTS
/// The scale of values that are followed by zeros: NaN when one of them is not finite, or so large that sums
/// might not be.
float scale_of_list(const float* values, int64_t count) {
  // Sums of products with row_weight_bits are to have 31 bits, whatever is rounded up.
  constexpr float largest = 32767, most = (1 << (31 - row_weight_bits)) - part_inputs, limit = 0x1p100f;
  Vec highest = set1(0), total = set1(0);
  for (int64_t i = 0; i < count; i += 16) {
    const Vec value = load(values + i), magnitude = max_of(value, sub(set1(0), value));
    highest = max_of(highest, magnitude);
    total = add(total, magnitude);
  }
  const float all = sum(total);
  if (!(all < limit)) return std::numeric_limits<float>::quiet_NaN();
  return std::max(largest_magnitude(highest, highest) / largest, all / most);
}

/// Gives their scale.
float store_integers_of_list(const float* values, int64_t count, std::byte* to) {
  const float scale = scale_of_list(values, count);
  const Vec inverse = set1(scale >= 0x1p-115f ? 1 / scale : 0);  // less is taken as zero
  for (int64_t i = 0; i < count; i += 32) {
    const Vec first = mul(load(values + i), inverse), second = mul(load(values + i + 16), inverse);
    store(reinterpret_cast<float*>(to + i * 2), integer_words(first, second));
  }
  return scale;
}
#endif

/// Gives their scale.
float store_list(const float* values, int64_t count, Operand operand, std::byte* to) {
#if RWKV_INTEGER_PRODUCTS
  if (operand == Operand::nonzero_integers) return store_integers_of_list(values, count, to);
#endif
  for (int64_t i = 0; i < count; i += 16) {
    const Vec v = load(values + i);
    if (operand == Operand::nonzero_bf16) {
      store_bf16(to + i * 2, v);
    } else {
      store(reinterpret_cast<float*>(to) + i, operand == Operand::nonzero_f32 ? v : round_to_bf16(v));
    }
  }
  return 1;
}

/// Of inputs from `first` on those of one part, rounded as the operand says. What is written behind the last
/// one is in the list's room too.
void prepare_list(const float* x, int64_t inputs, int64_t first, Operand operand, std::byte* list) {
  auto* places = reinterpret_cast<uint16_t*>(list + list_header_bytes);
  float values[part_inputs + 32];
  int64_t count = 0;
  for (int64_t i = 0; i < list_room(inputs, first); i += 16) {
    const Vec v = some_inputs(x, inputs, first + i);
    count += store_chosen(v, nonzero_lanes(v), i, values + count, places + count);
  }
  std::fill_n(values + count, 32, 0.0f);
  if (count % 2 != 0) places[count] = 0;
  const ListHeader header{count, store_list(values, count, operand, list + values_offset(count))};
  std::memcpy(list, &header, sizeof header);
}

void prepare_nonzero(const Tensor& x, Operand operand, Range tokens, std::byte* out) {
  for (int64_t t = tokens.begin; t < tokens.end; t++) {
    for (int64_t first = 0; first < x.cols(); first += part_inputs) {
      const int64_t later = std::min(t + 2, tokens.end - 1);
      fetch_list(list_at(out, x, later, first, operand), operand, prefetch_to_write);
      prepare_list(x.row(t), x.cols(), first, operand, list_at(out, x, t, first, operand));
    }
  }
}

}  // namespace

Operand operand_of(const Tensor& weight, int64_t tokens) {
  const bool blocks = weight.layout != Layout::input_rows, quantized = is_quantized(weight.dtype);
  const bool rounds = weight.dtype == DType::bf16 && !weight.exact;
  if (bf16_products && tokens > 1) {
    if (rounds || (quantized && weight.elements() > small_matrix)) {
      if (has_tiles) return Operand::bf16_tiles;
      return blocks ? Operand::bf16 : Operand::nonzero_bf16;
    }
  }
  if (integer_products && tokens > 1 && (rounds || quantized))
    return blocks ? Operand::several_integers : Operand::nonzero_integers;
  if (tokens == 1 && quantized && blocks) return Operand::integers;
  if (!rounds || integer_products) return blocks ? Operand::f32 : Operand::nonzero_f32;
  if (bf16_products && blocks) return Operand::bf16;
  return blocks ? Operand::rounded_f32 : Operand::nonzero_rounded_f32;
}

int64_t operand_group(Operand operand) {
  if (is_nonzero(operand)) return 1;
  return operand == Operand::bf16_tiles ? operand_tile_tokens : tile_tokens;
}

bool prepare(const Tensor& x, Operand operand, Range tokens, std::byte* out) {
  if (x.rows() == 1) {  // all at once: another core may have written them
    for (int64_t i = 0; i < x.cols(); i += 16) prefetch(x.row(0) + i);
  }
  if (operand == Operand::integers && x.rows() == 1) return prepare_integers(x.row(0), x.cols(), out);
  if (is_nonzero(operand)) {
    prepare_nonzero(x, operand, tokens, out);
    return true;
  }
  const int64_t token_bytes = grouped_bytes(operand, round_up(x.cols(), 64));
  for (int64_t first = tokens.begin; first < tokens.end; first += operand_group(operand)) {
    const Range group{first, std::min(first + operand_group(operand), tokens.end)};
    std::byte* to = out + first * token_bytes;
#if RWKV_INTEGER_PRODUCTS
    if (operand == Operand::several_integers) {
      prepare_integers(x, group, to);
      continue;
    }
#endif
    if (operand != Operand::bf16_tiles) {
      prepare_words(x, operand, group, to);
      continue;
    }
    for (int64_t t = group.begin; t < group.end; t++, to += line_bytes)
      prepare_tile_lines(x.row(t), x.cols(), to);
  }
  return true;
}

}  // namespace rwkv::cpu::ISA
