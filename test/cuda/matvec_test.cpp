// Products of one token: cuda/kernels/matvec.cu and matvec_rows.cu. test/ops has more shapes.
#include <doctest/doctest.h>

#include <cmath>

#include "test/cuda/device_under_test.h"
#include "test/cuda/matvec_bench.h"

namespace rwkv::test {
namespace {

constexpr Layout layouts[] = {Layout::cuda_blocks, Layout::input_rows};

void check(const MatvecBench& bench, const ProductCase& c) {
  CAPTURE(static_cast<int>(c.layout.layout));
  CAPTURE(name_of(c.layout.dtype));
  CAPTURE(static_cast<int>(c.epilogue));
  CAPTURE(c.layout.outputs);
  CAPTURE(c.layout.inputs);
  CHECK(mismatch(bench.run(c), expected_of(c)) == "");
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("matvec: every epilogue of every type and layout is as the formula says") {
  on_device(1, [] {
    const MatvecBench bench;
    int64_t seed = 1;
    for (Layout layout : layouts) {
      for (DType dtype : weight_types) {
        for (Epilogue epilogue : epilogues) check(bench, one_token(layout, dtype, 37, 70, epilogue, seed++));
      }
    }
  });
}

TEST_CASE("matvec: rows and columns of any number, alone or in parts for several warps and blocks") {
  constexpr Shape of_rows[] = {{1, 1}, {3, 0}, {0, 3}, {16, 16}, {17, 129}, {33, 64}, {5, 515}, {3, 4200}};
  constexpr Shape of_inputs[] = {{1, 1},   {3, 0},     {0, 3},     {64, 64},   {127, 255},
                                 {513, 9}, {129, 257}, {520, 300}, {70, 2100}, {1100, 520}};
  on_device(4, [&] {
    const MatvecBench bench;
    int64_t seed = 100;
    for (DType dtype : weight_types) {
      for (Shape s : of_rows) {
        check(bench, one_token(Layout::cuda_blocks, dtype, s.outputs, s.inputs, Epilogue::none, seed++));
      }
      for (Shape s : of_inputs) {
        check(bench, one_token(Layout::input_rows, dtype, s.outputs, s.inputs, Epilogue::add, seed++));
      }
    }
  });
}

TEST_CASE("matvec: products of one call have the bits that they have alone") {
  // The first makes warps take four rows, or two, at once; the others have rows long enough for several
  // rounds of loads. The last ones go into a second launch.
  std::vector<ProductCase> cases;
  int64_t seed = 200;
  auto add = [&](DType dtype, int64_t outputs, int64_t inputs) {
    cases.push_back(one_token(Layout::cuda_blocks, dtype, outputs, inputs,
                              epilogues[static_cast<size_t>(seed % 11)], seed));
    seed++;
  };
  struct Many {
    DType dtype;
    int64_t outputs, inputs;
  };
  for (Many many : {Many{DType::f32, 8200, 70},
                    {DType::i8, 4100, 270},
                    {DType::i4, 4100, 530},
                    {DType::f16, 4100, 140}}) {
    cases.clear();
    add(many.dtype, many.outputs, many.inputs);
    add(DType::f16, 23, 1100);
    add(DType::bf16, 18, 1100);
    add(DType::i8, 49, 2200);
    add(DType::f32, 7, 550);
    add(DType::i8, 100, 64);
    add(DType::i4, 49, 4300);
    for (int i = 0; i < 6; i++) add(weight_type(i), 20 + i, 33);
    cases.push_back(one_token(Layout::input_rows, DType::f16, 30, 300, Epilogue::add, seed++));
    cases.push_back(one_token(Layout::input_rows, DType::i8, 70, 40, Epilogue::none, seed++));
    cases.push_back(one_token(Layout::input_rows, DType::i4, 70, 40, Epilogue::none, seed++));
    on_device(4, [&] {
      const MatvecBench bench;
      std::vector<std::unique_ptr<OnDevice>> on_device;
      std::vector<Product> products;
      for (const ProductCase& c : cases) {
        on_device.push_back(std::make_unique<OnDevice>(bench.device(), c, Range{0, 1}));
        products.push_back(on_device.back()->product());
      }
      bench.run(products);
      for (size_t i = 0; i < cases.size(); i++) {
        CAPTURE(i);
        const std::vector<float> result = on_device[i]->result();
        CHECK(mismatch(result, expected_of(cases[i])) == "");
        CHECK(same_bits(result, bench.run(cases[i])));
      }
    });
  }
}

TEST_CASE("matvec: the same bits in every order of threads and blocks") {
  std::vector<std::vector<float>> first;
  on_device(16, [&] {
    const MatvecBench bench;
    int64_t seed = 300;
    size_t n = 0;
    for (Layout layout : layouts) {
      for (DType dtype : weight_types) {
        const ProductCase c = one_token(layout, dtype, 100, 1030, Epilogue::none, seed++);
        const std::vector<float> result = bench.run(c);
        if (n == first.size()) first.push_back(result);
        CHECK(same_bits(result, first[n++]));
      }
    }
  });
}

namespace {

/// A product in input_rows whose rows of zero inputs hold NaN.
struct Sparse {
  MatrixLayout layout;
  std::vector<float> x, weights;  // weights: of the inputs that are not zero, one after the other
  std::vector<std::byte> bytes;

  Sparse(DType dtype, int64_t outputs, int64_t inputs, int64_t every)
      : layout{Layout::input_rows, dtype, outputs, inputs},
        x(static_cast<size_t>(inputs)),
        bytes(static_cast<size_t>(layout.bytes()), std::byte{0xff}) {
    Random random(static_cast<uint64_t>(inputs));
    for (int64_t i = 0; i < inputs; i++) {
      float& value = x[static_cast<size_t>(i)];
      value = i % 2 == 0 ? 0.0f : -0.0f;
      if (random.index(every) != 0) continue;
      value = random.normal();
      std::vector<float> row = random.normals(outputs);
      std::byte* packed = bytes.data() + i * layout.unit_bytes();
      pack_unit(layout, i, row.data(), packed);
      unpack_unit(layout, i, packed, row.data());
      weights.insert(weights.end(), row.begin(), row.end());
    }
  }

  [[nodiscard]] Estimates expected() const {
    std::vector<float> used, column;
    for (float value : x) {
      if (value != 0) used.push_back(value);
    }
    Estimates all;
    for (int64_t o = 0; o < layout.outputs; o++) {
      column.clear();
      for (size_t i = 0; i < used.size(); i++)
        column.push_back(weights[i * static_cast<size_t>(layout.outputs) + static_cast<size_t>(o)]);
      all.push_back(dot(used, column));
    }
    return all;
  }
};

std::vector<float> run_sparse(const MatvecBench& bench, const Sparse& c) {
  const Buffer memory = bench.device().allocate(c.bytes.size());
  bench.device().copy_in(memory.data(), c.bytes.data(), c.bytes.size());
  Tensor weight = packed_view(c.layout, memory.data());
  weight.device = bench.device().id();
  const std::vector<float> nothing(static_cast<size_t>(c.layout.outputs));
  const DeviceTensor x(bench.device(), {1, c.layout.inputs}, c.x),
      out(bench.device(), {1, c.layout.outputs}, nothing);
  const Product product{x, weight, out};
  bench.run({&product, 1});
  return finish(out, {&x});
}

}  // namespace

TEST_CASE("matvec: a zero input's weights are skipped, whatever they are") {
  on_device(4, [] {
    const MatvecBench bench;
    for (DType dtype : weight_types) {
      const Sparse some(dtype, 150, 700, 5), none(dtype, 40, 300, int64_t{1} << 40);
      CHECK(mismatch(run_sparse(bench, some), some.expected()) == "");
      CHECK(same_bits(run_sparse(bench, none), std::vector<float>(40)));
    }
  });
}

TEST_CASE("matvec: so many columns that warps list their inputs in several rounds") {
  const Sparse wide(DType::f32, 16500, 1100, 8);
  on_device(1, [&] { CHECK(mismatch(run_sparse(MatvecBench(), wide), wide.expected()) == ""); });
}

TEST_CASE("matvec: NaN and infinite inputs show in all outputs") {
  on_device(1, [] {
    const MatvecBench bench;
    for (Layout layout : layouts) {
      for (DType dtype : weight_types) {
        for (float value : {NAN, INFINITY}) {
          ProductCase c = one_token(layout, dtype, 20, 70, Epilogue::none, 400);
          c.x[69] = value;
          for (float y : bench.run(c)) CHECK(!std::isfinite(y));
        }
      }
    }
  });
}

namespace {

/// The operators that can be a tail, on tensors of their own.
struct Tails {
  DeviceTensor weight, bias, state, normalized, out;
  std::vector<DeviceTensor> amounts, mixed;
  std::vector<Mix> mixes;

  Tails(Device& device, int64_t width, int64_t mix_count, int64_t seed)
      : Tails(device, width, mix_count, seed, Random(static_cast<uint64_t>(seed))) {}
  Tails(Device& device, int64_t width, int64_t mix_count, int64_t seed, Random random)
      : weight(device, {width}, random.normals(width), Place::number(seed)),
        bias(device, {width}, random.normals(width), Place::number(seed + 1)),
        state(device, {width}, random.normals(width), Place::number(seed + 2)),
        normalized(device, {2, width}, random.normals(2 * width), Place::number(seed + 3)),
        out(device, {1, width}, random.normals(width), Place::number(seed + 4)) {
    amounts.reserve(static_cast<size_t>(mix_count));
    mixed.reserve(static_cast<size_t>(mix_count));
    for (int64_t m = 0; m < mix_count; m++) {
      amounts.emplace_back(device, std::initializer_list<int64_t>{width}, random.normals(width),
                           Place::number(seed + m));
      mixed.emplace_back(device, std::initializer_list<int64_t>{1, width}, random.normals(width),
                         Place::number(seed + m + 1));
      mixes.push_back({amounts.back(), mixed.back()});
    }
  }

  [[nodiscard]] TokenShift shift(const Tensor& x) const {
    return {x, {weight, bias}, state, normalized, mixes};
  }
  [[nodiscard]] cuda::Tail::LayerNorm norm(const Tensor& x) const { return {out, x, {weight, bias}}; }
  [[nodiscard]] std::vector<float> results() const {
    std::vector<float> all = finish(normalized, {&weight, &bias});
    for (const DeviceTensor* part : {&state, &out}) {
      const std::vector<float> values = finish(*part, {});
      all.insert(all.end(), values.begin(), values.end());
    }
    for (const DeviceTensor& m : mixed) {
      const std::vector<float> values = finish(m, {});
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
};

/// The product's results and the tail's, the tail in the same launch or in one of its own.
std::vector<float> run_tail(const MatvecBench& bench, const std::vector<ProductCase>& cases, bool shift,
                            bool together) {
  std::vector<std::unique_ptr<OnDevice>> on_device;
  std::vector<Product> products;
  for (const ProductCase& c : cases) {
    on_device.push_back(std::make_unique<OnDevice>(bench.device(), c, Range{0, 1}));
    products.push_back(on_device.back()->product());
  }
  const int64_t width = cases[0].layout.outputs, seed = cases[0].seed;
  const Tensor x = products[0].out;
  const Tails tails(bench.device(), width, seed % (cuda::max_mixes + 1), seed);
  const TokenShift token_shift = tails.shift(x);
  const cuda::Tail::LayerNorm norm = tails.norm(x);
  cuda::Tail tail;
  if (together && shift) tail.shift = &token_shift;
  if (together && !shift) tail.norm = &norm;
  bench.run(products, tail);
  if (!together && shift) cuda::token_shift(token_shift, bench.queue().stream());
  if (!together && !shift) cuda::layer_norm(norm.out, norm.x, norm.norm, bench.queue().stream());
  bench.queue().synchronize();
  std::vector<float> all = on_device[0]->result(), more = tails.results();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

void check_tail(const MatvecBench& bench, const std::vector<ProductCase>& cases) {
  CAPTURE(static_cast<int>(cases[0].layout.layout));
  CAPTURE(cases[0].layout.outputs);
  for (bool shift : {false, true}) {
    CAPTURE(shift);
    CHECK(same_bits(run_tail(bench, cases, shift, true), run_tail(bench, cases, shift, false)));
  }
}

}  // namespace

TEST_CASE("matvec: a norm or token shift as the tail has the bits of one that follows") {
  on_device(4, [] {
    const MatvecBench bench;
    int64_t seed = 500;
    for (Layout layout : layouts) {
      for (Shape s : {Shape{1, 5}, {65, 600}, {1500, 300}}) {
        const DType dtype = weight_type(seed);
        check_tail(bench, {one_token(layout, dtype, s.outputs, s.inputs, Epilogue::add, seed++)});
      }
    }
    std::vector<ProductCase> many;  // the tail's x is of the first of two launches
    for (int i = 0; i < 9; i++)
      many.push_back(one_token(Layout::cuda_blocks, weight_type(i), 90, 50, Epilogue::gated_add, seed++));
    check_tail(bench, many);
    many.erase(many.begin() + 1, many.end());
    many.push_back(one_token(Layout::input_rows, DType::f16, 40, 300, Epilogue::none, seed++));
    check_tail(bench, many);
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
