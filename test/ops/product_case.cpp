#include "test/ops/product_case.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"

namespace rwkv::test {
namespace {

// Neighbouring groups of 32 weights are of different sizes, so that a scale cannot pass for another.
std::vector<float> weights(Random& random, const MatrixLayout& m) {
  std::vector<float> values;
  for (int64_t o = 0; o < m.outputs; o++) {
    for (int64_t i = 0; i < m.inputs; i++) {
      auto exponent = static_cast<int>((o % 3 + o / 32 * 3 + i / 32 * 5) % 7);
      values.push_back(std::ldexp(random.normal(0.5), exponent - 5));
    }
  }
  return values;
}

// Most inputs of ffn.value are zero; of some tokens all, of some none.
std::vector<float> inputs(Random& random, const MatrixLayout& m, int64_t tokens) {
  std::vector<float> values = random.normals(tokens * m.inputs);
  if (m.layout != Layout::input_rows) return values;
  for (int64_t t = 0, i = 0; t < tokens; t++) {
    const auto kind = random.index(8);
    for (const int64_t end = i + m.inputs; i < end; i++) {
      float& v = values[static_cast<size_t>(i)];
      const bool kept = kind == 0 || (kind > 1 && random.index(4) == 0);
      v = kept ? v * v : random.index(4) == 0 ? -0.0f : 0.0f;
    }
  }
  return values;
}

PackedMatrix random_matrix(const MatrixLayout& layout, int64_t seed) {
  Random random(static_cast<uint64_t>(seed));
  return {layout, weights(random, layout)};
}

}  // namespace

ProductCase::ProductCase(MatrixLayout layout, Epilogue epilogue, int64_t tokens, int64_t seed)
    : layout(layout), epilogue(epilogue), tokens(tokens), seed(seed), weight(random_matrix(layout, seed)) {
  Random random(static_cast<uint64_t>(seed) + 1000);
  x = inputs(random, layout, tokens);
  out = random.normals(tokens * layout.outputs);
  bias = random.normals(layout.outputs, 2);
  a = random.normals(tokens * layout.outputs);
  b = random.normals(tokens * layout.outputs);
}

OnDevice::OnDevice(Device& device, const ProductCase& c, Range tokens)
    : outputs_(c.layout.outputs),
      count_(tokens.end - tokens.begin),
      weight_(device, c.weight),
      x_(device, {count_, c.layout.inputs}, rows_of(c.x, c.layout.inputs, tokens), Place::number(c.seed)),
      out_(device, {count_, outputs_}, rows_of(c.out, outputs_, tokens), Place::number(c.seed + 1)),
      bias_(device, {outputs_}, c.bias, Place::number(c.seed + 2)),
      a_(device, {count_, outputs_}, rows_of(c.a, outputs_, tokens), Place::number(c.seed + 3)),
      b_(device, {count_, outputs_}, rows_of(c.b, outputs_, tokens), Place::number(c.seed + 4)),
      epilogue_(c.epilogue) {}

Product OnDevice::product() const {
  Product p{x_, weight_, out_, epilogue_};
  bool mix = epilogue_ == Epilogue::biased_mix;
  if (epilogue_ >= Epilogue::biased_sigmoid) p.bias = bias_;
  if (mix || epilogue_ == Epilogue::gated_add) p.a = a_;
  if (mix) p.b = b_;
  return p;
}

std::vector<float> run_alone(Bench bench, const ProductCase& c, Range tokens) {
  OnDevice on_device(bench.device, c, tokens);
  Product product = on_device.product();
  bench.ops.matmul({&product, 1});
  bench.ops.synchronize();
  return on_device.result();
}

namespace {

/// The outputs of a token whose products, before the epilogue, `product_of` (output) gives.
template <class ProductOf>
Estimates outputs_of(const ProductCase& c, int64_t t, ProductOf product_of) {
  Estimates row;
  for (int64_t o = 0; o < c.layout.outputs; o++) {
    auto i = static_cast<size_t>(t * c.layout.outputs + o);
    row.push_back(
        apply(c.epilogue, product_of(o), {c.out[i], c.bias[static_cast<size_t>(o)], c.a[i], c.b[i]}));
  }
  return row;
}

void round_to_bf16(std::vector<float>& x) {
  for (float& v : x) v = to_float(to_bfloat16(v));
}

/// How far integers up to `most`, with a scale for each `group` inputs, are from the inputs, for each of
/// them.
std::vector<double> rounding_to_integers(std::span<const float> x, size_t group, double most) {
  std::vector<double> errors;
  for (size_t i = 0; i < x.size(); i++) {
    double largest = 0;
    for (size_t k = i / group * group; k < std::min(x.size(), i / group * group + group); k++)
      largest = std::max(largest, std::abs(double{x[k]}));
    errors.push_back(std::isfinite(largest) ? std::max(largest * 0.501 / most, 0x1p-100) : 0);
  }
  return errors;
}

/// The products of x and weights when so much is lost of each input.
Estimate dot_of_integers(std::span<const float> x, std::span<const double> errors,
                         std::span<const float> weights) {
  Estimate product = dot(x, weights);
  for (size_t i = 0; i < errors.size(); i++) product.error += errors[i] * std::abs(double{weights[i]});
  return product;
}

/// With fp32 inputs, but for bf16 weights on a CPU that does not round several tokens' to integers.
Estimates expected_row_widened(const ProductCase& c, int64_t t, Rounding rounding) {
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  const bool rounds = rounding == Rounding::cpu || rounding == Rounding::cpu_bf16;
  if (c.layout.dtype == DType::bf16 && rounds) round_to_bf16(x);
  return outputs_of(c, t, [&](int64_t o) { return dot(x, c.weight.row(o)); });
}

/// A token alone.
Estimates expected_row(const ProductCase& c, int64_t t, Rounding rounding) {
  bool integers = is_quantized(c.layout.dtype) && c.layout.layout == Layout::cpu_blocks;
  if (!integers) return expected_row_widened(c, t, rounding);
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  std::vector<double> errors = rounding_to_integers(x, 32, 32639);
  return outputs_of(c, t, [&](int64_t o) {
    return dot_of_integers(x, errors, rows_of(c.weight.stored, c.layout.inputs, {o, o + 1}));
  });
}

/// Each group to multiples of 1 / 2^(bits - 1) of the power of two in `largest` (its first).
template <class Largest>
void round_to_bits(std::vector<float>& weights, size_t group, int bits, Largest largest) {
  for (size_t first = 0; first < weights.size(); first += group) {
    std::span<float> some =
        std::span(weights).subspan(first, std::min<size_t>(weights.size() - first, group));
    const float bound = largest(some, first);
    if (bound == 0 || !std::isfinite(bound)) continue;
    const int unit = std::ilogb(bound) - bits + 1;
    for (float& w : some) w = std::ldexp(std::nearbyint(std::ldexp(w, -unit)), unit);
  }
}

float largest_weight(std::span<const float> weights, size_t) {
  float largest = 0;
  for (float w : weights) largest = std::max(largest, std::abs(w));
  return largest;
}

/// Of blocks of int8 or int4.
float scale_in_block(const PackedMatrix& weight, int64_t input, int64_t output) {
  const int64_t steps = (weight.layout.inputs + 63) / 64;
  const int64_t step = (output / 16 * steps + input / 64) * step_bytes(weight.layout.dtype);
  uint16_t bits = 0;
  std::memcpy(&bits, weight.bytes.data() + step + (input % 64 / 32 * 16 + output % 16) * 2, sizeof bits);
  return to_float(BFloat16{bits});
}

/// What int8 and int4 lose when of two scales for 32 inputs the larger one is split in 32.
std::vector<double> lost_to_larger_scale(const ProductCase& c, int64_t output) {
  std::vector<double> lost;
  for (int64_t i = 0; i < c.layout.inputs; i++) {
    const double own = std::abs(scale_in_block(c.weight, i / 32 * 32, output));
    const double other = std::abs(scale_in_block(c.weight, i / 32 * 32 ^ 32, output));
    lost.push_back(own >= other ? 0 : other / 32 * 0.63);  // factors have 15 bits
  }
  return lost;
}

Estimates expected_row_of_several_integers(const ProductCase& c, int64_t t) {
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  std::vector<double> errors = rounding_to_integers(x, 64, 8191);
  return outputs_of(c, t, [&](int64_t o) {
    std::vector<float> weights = rows_of(c.weight.stored, c.layout.inputs, {o, o + 1});
    const bool bf16 = c.layout.dtype == DType::bf16;
    if (bf16) round_to_bits(weights, 64, 12, largest_weight);
    Estimate product = dot_of_integers(x, errors, weights);
    if (bf16) return product;
    const std::vector<double> lost = lost_to_larger_scale(c, o);
    for (size_t i = 0; i < x.size(); i++) product.error += lost[i] * (std::abs(double{x[i]}) + errors[i]);
    return product;
  });
}

/// Of a row of int8 or int4 [inputs][outputs].
float scale_in_row(const PackedMatrix& weight, size_t input, int64_t output) {
  uint16_t bits = 0;
  std::memcpy(
      &bits, weight.bytes.data() + static_cast<int64_t>(input) * weight.layout.unit_bytes() + output / 32 * 2,
      sizeof bits);
  return to_float(BFloat16{bits});
}

/// For parts of 256 inputs: integers of weights are at most 128, whatever they are.
Estimates expected_row_of_integer_rows(const ProductCase& c, int64_t t) {
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  std::vector<double> errors = rounding_to_integers(x, 256, 32767);
  for (size_t first = 0; first < x.size(); first += 256) {
    double total = 0;
    const size_t end = std::min<size_t>(x.size(), first + 256);
    for (size_t i = first; i < end; i++) total += std::abs(double{x[i]});
    for (size_t i = first; i < end; i++)
      errors[i] = x[i] == 0 ? 0 : std::max(errors[i], total * 0.501 / (131072 - 256));
  }
  return outputs_of(c, t, [&](int64_t o) {
    std::vector<float> weights = rows_of(c.weight.stored, c.layout.inputs, {o, o + 1});
    auto largest = [&](std::span<const float> some, size_t first) {
      if (c.layout.dtype == DType::bf16) return largest_weight(some, first);
      float scale = 0;
      for (size_t i = first; i < first + some.size(); i++)
        scale = std::max(scale, std::abs(scale_in_row(c.weight, i, o)));
      return 128 * scale;
    };
    round_to_bits(weights, 256, 14, largest);
    return dot_of_integers(x, errors, weights);
  });
}

/// As a CPU with VNNI multiplies for a token among others.
Estimates expected_row_of_integers(const ProductCase& c, int64_t t) {
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  const bool finite = std::ranges::all_of(x, [](float v) { return std::isfinite(v); });
  const bool bf16 = c.layout.dtype == DType::bf16, rows = c.layout.layout == Layout::input_rows;
  if (finite && rows && (bf16 || is_quantized(c.layout.dtype))) return expected_row_of_integer_rows(c, t);
  if (finite && (bf16 || is_quantized(c.layout.dtype))) return expected_row_of_several_integers(c, t);
  return expected_row(c, t, Rounding::cpu_integers);
}

/// To the significant bits of fp16, with any exponent.
float round_to_half(float x) {
  if (!std::isfinite(x)) return x;
  int exponent = 0;
  float mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(mantissa * 2048) / 2048, exponent);
}

/// As tensor cores multiply for a token among others.
Estimates expected_row_among(const ProductCase& c, int64_t t) {
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  bool half = c.layout.dtype == DType::f16 || is_quantized(c.layout.dtype);
  bool two_parts = c.layout.outputs * c.layout.inputs <= small_matrix;
  if (c.layout.dtype == DType::bf16) round_to_bf16(x);
  if (!half) return outputs_of(c, t, [&](int64_t o) { return dot(x, c.weight.row(o)); });
  // With the largest input scaled to at least 2^14, what is far below it becomes a multiple of 2^-24.
  float largest = 0;
  for (float& v : x) {
    largest = std::max(largest, std::isfinite(v) ? std::abs(v) : 0);
    if (!two_parts) v = round_to_half(v);
  }
  double lost = 0x1p-39 * largest;
  return outputs_of(c, t, [&](int64_t o) {
    std::vector<float> weights = rows_of(c.weight.stored, c.layout.inputs, {o, o + 1});
    double sum = 0;
    for (float& w : weights) {
      if (is_quantized(c.layout.dtype)) w = to_float(to_half(w));
      sum += std::abs(w);
    }
    Estimate product = dot(x, weights);
    product.error += lost * sum;
    for (size_t i = 0; two_parts && i < x.size(); i++) {
      if (std::isfinite(x[i])) product.error += std::abs(double{x[i]} * weights[i]) * 0x1p-21;
    }
    return product;
  });
}

/// As a CPU with instructions for bf16 multiplies for a token among others.
Estimates expected_row_of_pairs(const ProductCase& c, int64_t t) {
  std::vector<float> x = rows_of(c.x, c.layout.inputs, {t, t + 1});
  bool small = c.layout.outputs * c.layout.inputs <= small_matrix;
  bool rounded = c.layout.dtype == DType::bf16 || (is_quantized(c.layout.dtype) && !small);
  if (rounded) round_to_bf16(x);
  return outputs_of(c, t, [&](int64_t o) {
    std::vector<float> weights = rows_of(c.weight.stored, c.layout.inputs, {o, o + 1});
    if (rounded) round_to_bf16(weights);
    return dot(x, weights);
  });
}

}  // namespace

void check_case(const Implementation& implementation, const ProductCase& c) {
  CAPTURE(name_of(c.layout.dtype));
  CAPTURE(static_cast<int>(c.layout.layout));
  CAPTURE(c.layout.outputs);
  CAPTURE(c.layout.inputs);
  CAPTURE(c.tokens);
  CAPTURE(static_cast<int>(c.epilogue));
  Sequence s;
  s.tokens = c.tokens;
  s.run = [&c](Bench bench, Range tokens, std::vector<float>&) { return run_alone(bench, c, tokens); };
  Rounding rounding = implementation.rounding();
  s.expected = [&c, rounding](int64_t t, Floats) { return Step{expected_row(c, t, rounding), {}}; };
  if (rounding == Rounding::cuda) s.expected_among = [&c](int64_t t) { return expected_row_among(c, t); };
  // Integers are scaled before or after a sum.
  if (rounding == Rounding::cpu && is_quantized(c.layout.dtype))
    s.expected_among = [&c](int64_t t) { return expected_row_widened(c, t, Rounding::cpu); };
  if (rounding == Rounding::cpu_integers)
    s.expected_among = [&c](int64_t t) { return expected_row_of_integers(c, t); };
  if (rounding == Rounding::cpu_bf16)
    s.expected_among = [&c](int64_t t) { return expected_row_of_pairs(c, t); };
  check_sequence(implementation, s);
}

}  // namespace rwkv::test
