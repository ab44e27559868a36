// Matrix products: shapes, layouts, types, epilogues, several products in a call.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "ops/coding.h"
#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

constexpr int64_t chunk_lengths[] = {1, 2, 3, 5, 11, 12, 13, 25, 64, 100};

struct Shape {
  int64_t outputs, inputs;
};
constexpr Shape shapes[] = {{1, 1},     {1, 7},     {7, 1},     {15, 16},  {16, 15},  {16, 16},
                            {17, 17},   {31, 33},   {32, 64},   {33, 63},  {48, 65},  {63, 31},
                            {64, 32},   {64, 64},   {65, 66},   {64, 128}, {80, 96},  {100, 100},
                            {127, 129}, {128, 127}, {130, 200}, {192, 64}, {257, 70}, {5, 300},
                            {300, 5},   {160, 320}, {0, 5},     {5, 0},    {20, 600}};

}  // namespace

void check_matmul(const Implementation& implementation, Layout layout, DType dtype) {
  auto seed = static_cast<int64_t>(dtype) * 3 + static_cast<int64_t>(layout) * 5;
  for (Shape shape : shapes) {
    int64_t tokens = chunk_lengths[seed % std::size(chunk_lengths)];
    Epilogue epilogue = epilogues[seed % std::size(epilogues)];
    check_case(implementation, {{layout, dtype, shape.outputs, shape.inputs}, epilogue, tokens, seed++});
  }
  for (int64_t tokens : chunk_lengths) {
    check_case(implementation, {{layout, dtype, 83, 70}, Epilogue::none, tokens, seed++});
  }
  check_case(implementation,
             {{layout, dtype, 224, 260}, Epilogue::add, 100, seed++});  // enough for all threads
  check_case(implementation,
             {{layout, dtype, 514, 512}, Epilogue::none, 7, seed++});  // more than 2^18 weights
  // More outputs than a thread holds sums of at once.
  check_case(implementation, {{layout, dtype, 1090, 40}, Epilogue::add, 3, seed});
}

void check_epilogues(const Implementation& implementation, Layout layout, DType dtype) {
  int64_t seed = 7;
  for (Epilogue epilogue : epilogues) {
    for (int64_t tokens : {1, 5, 13}) {
      check_case(implementation, {{layout, dtype, 37, 70}, epilogue, tokens, seed++});
      check_case(implementation, {{layout, dtype, 64, 64}, epilogue, tokens, seed++});
    }
  }
}

void check_matmul_of_several(const Implementation& implementation) {
  int64_t seed = 100;
  for (int64_t tokens : {1, 2, 12, 25}) {
    for (size_t count : {2, 3, 7, 20}) {
      std::vector<ProductCase> cases;
      for (size_t i = 0; i < count; i++, seed++) {
        Shape shape = shapes[static_cast<size_t>(seed) % std::size(shapes)];
        Layout layout =
            implementation.layouts()[static_cast<size_t>(seed) / 3 % implementation.layouts().size()];
        DType dtype = weight_type(seed);
        cases.emplace_back(MatrixLayout{layout, dtype, shape.outputs, shape.inputs}, epilogues[seed % 11],
                           tokens, seed);
      }
      for (size_t d = 0; d < implementation.size(); d++) {
        Bench bench = implementation[d];
        std::vector<std::unique_ptr<OnDevice>> together;
        std::vector<Product> products;
        for (const ProductCase& c : cases) {
          together.push_back(std::make_unique<OnDevice>(bench.device, c, Range{0, tokens}));
          products.push_back(together.back()->product());
        }
        bench.ops.matmul(products);
        bench.ops.synchronize();
        for (size_t i = 0; i < count; i++) {
          CAPTURE(bench.device.description());
          CAPTURE(tokens);
          CAPTURE(i);
          CHECK(same_bits(together[i]->result(), run_alone(bench, cases[i], {0, tokens})));
        }
      }
    }
  }
  // None, and none of a token.
  implementation[0].ops.matmul({});
  ProductCase empty({implementation.layouts()[0], DType::f32, 20, 30}, Epilogue::add, 0, 1);
  CHECK(run_alone(implementation[0], empty, {0, 0}).empty());
}

void check_matmul_of_shared_inputs(const Implementation& implementation) {
  constexpr int64_t inputs = 200, part_inputs = 130;
  int64_t seed = 300;
  for (int64_t tokens : {1, 2, 13, 25}) {
    for (size_t type = 0; type < std::size(weight_types); type++, seed += 3) {
      const Layout layout = implementation.layouts()[type % implementation.layouts().size()];
      ProductCase first({layout, weight_type(seed), 83, inputs}, Epilogue::none, tokens, seed);
      ProductCase same({layout, weight_type(seed / 2), 70, inputs}, Epilogue::tanh, tokens, seed + 1);
      ProductCase part({layout, weight_type(seed), 65, part_inputs}, Epilogue::add, tokens, seed + 2);
      same.x = first.x;
      for (int64_t t = 0; t < tokens; t++)
        std::copy_n(first.x.begin() + t * inputs, part_inputs, part.x.begin() + t * part_inputs);
      for (size_t d = 0; d < implementation.size(); d++) {
        Bench bench = implementation[d];
        const Range all{0, tokens};
        OnDevice a(bench.device, first, all), b(bench.device, same, all), c(bench.device, part, all);
        Product products[] = {a.product(), b.product(), c.product()};
        products[1].x = products[0].x;
        products[2].x = products[0].x.slice_cols(0, part_inputs);
        bench.ops.matmul(products);
        bench.ops.synchronize();
        CAPTURE(bench.device.description());
        CAPTURE(tokens);
        CHECK(same_bits(a.result(), run_alone(bench, first, all)));
        CHECK(same_bits(b.result(), run_alone(bench, same, all)));
        CHECK(same_bits(c.result(), run_alone(bench, part, all)));
      }
    }
  }
}

void check_exact_matmul(const Implementation& implementation) {
  int64_t seed = 500;
  auto result = [](Bench bench, const ProductCase& c, bool exact) {
    OnDevice on_device(bench.device, c, {0, c.tokens});
    Product product = on_device.product();
    product.weight.exact = exact;
    bench.ops.matmul({&product, 1});
    bench.ops.synchronize();
    return on_device.result();
  };
  for (Layout layout : implementation.layouts()) {
    for (Shape shape : shapes) {
      for (int64_t tokens : {int64_t{1}, chunk_lengths[seed % std::size(chunk_lengths)]}) {
        const Epilogue epilogue = epilogues[seed++ % std::size(epilogues)];
        const ProductCase narrow({layout, DType::bf16, shape.outputs, shape.inputs}, epilogue, tokens, seed);
        ProductCase wide({layout, DType::f32, shape.outputs, shape.inputs}, epilogue, tokens, seed);
        wide.weight = PackedMatrix(wide.layout, narrow.weight.stored);
        for (size_t d = 0; d < implementation.size(); d++) {
          CAPTURE(implementation[d].device.description());
          CAPTURE(static_cast<int>(layout));
          CAPTURE(shape.outputs);
          CAPTURE(shape.inputs);
          CAPTURE(tokens);
          CHECK(same_bits(result(implementation[d], narrow, true), result(implementation[d], wide, false)));
        }
      }
    }
  }
}

namespace {

/// Some weights become exceptions of their segments: the first and the last of each, and neighbours.
void make_exceptions(std::vector<float>& weights, Shape shape) {
  for (int64_t o = 0; o < shape.outputs; o += 16) {
    for (int64_t first = 0; first < shape.inputs; first += segment_inputs) {
      const int64_t last = std::min(first + segment_inputs, shape.inputs) - 1;
      for (int64_t input : {first, first + (last - first) / 2, last}) {
        for (int64_t output = o; output < std::min(o + 16, shape.outputs); output += 5)
          weights[static_cast<size_t>(output * shape.inputs + input)] =
              std::ldexp(1.5f, static_cast<int>(-60 + output % 40));
      }
    }
  }
}

std::vector<float> multiply(Bench bench, const std::vector<Product>& products, const OnDevice& result) {
  bench.ops.matmul(products);
  bench.ops.synchronize();
  return result.result();
}

}  // namespace

void check_coded_matmul(const Implementation& implementation) {
  int64_t seed = 700;
  std::vector<Shape> all(std::begin(shapes), std::end(shapes));
  for (int64_t inputs : {255, 256, 257, 512, 768, 1000}) all.push_back({inputs % 7 * 20 + 40, inputs});
  // Long enough for blocks beside each other, in numbers that two and three divide or not.
  for (int64_t outputs : {224, 320}) all.push_back({outputs, 1000});
  for (Shape shape : all) {
    for (int64_t tokens : {int64_t{1}, chunk_lengths[seed % std::size(chunk_lengths)]}) {
      const Epilogue epilogue = epilogues[seed++ % std::size(epilogues)];
      ProductCase plain({Layout::cpu_blocks, DType::bf16, shape.outputs, shape.inputs}, epilogue, tokens,
                        seed);
      std::vector<float> weights = Random(static_cast<uint64_t>(seed)).normals(shape.outputs * shape.inputs);
      make_exceptions(weights, shape);
      plain.weight = PackedMatrix(plain.layout, weights);
      if (tokens > 1 && shape.inputs > 0) plain.x.back() = INFINITY;  // of one token
      ProductCase smaller = plain;
      smaller.layout = coded(plain.layout);
      smaller.weight = PackedMatrix(smaller.layout, weights);
      REQUIRE(same_bits(smaller.weight.stored, plain.weight.stored));
      for (size_t d = 0; d < implementation.size(); d++) {
        for (bool exact : {false, true}) {
          CAPTURE(implementation[d].device.description());
          CAPTURE(shape.outputs);
          CAPTURE(shape.inputs);
          CAPTURE(tokens);
          CAPTURE(exact);
          OnDevice a(implementation[d].device, plain, {0, tokens}),
              b(implementation[d].device, smaller, {0, tokens});
          Product of_plain = a.product(), of_smaller = b.product();
          of_plain.weight.exact = of_smaller.weight.exact = exact;
          const std::vector<float> expected = multiply(implementation[d], {of_plain}, a);
          CHECK(same_bits(multiply(implementation[d], {of_smaller}, b), expected));
        }
      }
    }
  }
}

void check_damaged_coding(const Implementation& implementation) {
  Random random(1);
  for (int64_t inputs : {256, 300, 513}) {
    for (int64_t tokens : {1, 2, 25}) {
      ProductCase c({Layout::cpu_coded, DType::bf16, 40, inputs}, Epilogue::none, tokens, inputs);
      for (std::byte& b : c.weight.bytes) b = static_cast<std::byte>(random.index(256));
      // result() looks at the memory around what may be written.
      for (size_t d = 0; d < implementation.size(); d++)
        CHECK(run_alone(implementation[d], c, {0, tokens}).size() == static_cast<size_t>(40 * tokens));
    }
  }
}

void check_matmul_repeatedly(const Implementation& implementation) {
  for (Layout layout : implementation.layouts()) {
    ProductCase c({layout, DType::f32, 1000, 300}, Epilogue::none, 25, 1);
    std::vector<float> expected = run_alone(implementation[0], c, {0, c.tokens});
    for (size_t d = 1; d < implementation.size(); d++) {
      Bench bench = implementation[d];
      CAPTURE(bench.device.description());
      OnDevice on_device(bench.device, c, {0, c.tokens});
      Product product = on_device.product();
      for (int i = 0; i < 20; i++) {
        bench.ops.matmul({&product, 1});
        bench.ops.synchronize();
        REQUIRE(same_bits(on_device.result(), expected));
      }
    }
  }
}

}  // namespace rwkv::test
