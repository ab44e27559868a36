#include "test/ops/product_case.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/half.h"

namespace rwkv::test {
namespace {

// Neighbouring groups of 32 weights are of different sizes, so that a scale of int8 cannot pass for another.
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

// Most inputs of ffn.value are zero.
std::vector<float> inputs(Random& random, const MatrixLayout& m, int64_t tokens) {
  std::vector<float> values = random.normals(tokens * m.inputs);
  if (m.layout == Layout::input_rows) {
    for (float& v : values) v = random.index(4) == 0 ? v * v : random.index(4) == 0 ? -0.0f : 0.0f;
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
  return on_device.result();
}

namespace {

Estimates expected_row(const ProductCase& c, int64_t t) {
  int64_t inputs = c.layout.inputs, outputs = c.layout.outputs;
  std::vector<float> x = rows_of(c.x, inputs, {t, t + 1});
  if (c.layout.dtype == DType::bf16) {
    for (float& v : x) v = to_float(to_bfloat16(v));
  }
  Estimates row;
  for (int64_t o = 0; o < outputs; o++) {
    auto i = static_cast<size_t>(t * outputs + o);
    row.push_back(apply(c.epilogue, dot(x, c.weight.row(o)),
                        {c.out[i], c.bias[static_cast<size_t>(o)], c.a[i], c.b[i]}));
  }
  return row;
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
  s.expected = [&c](int64_t t, Floats) { return Step{expected_row(c, t), {}}; };
  check_sequence(implementation, s);
}

}  // namespace rwkv::test
