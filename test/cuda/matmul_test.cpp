// Products of chunks, kernel by kernel: each shape of tile, with results as ops/ops.h documents their
// rounding.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/half.h"
#include "cuda/cuda.h"
#include "cuda/kernels/tile.h"
#include "cuda/queue.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

using cuda::Tile;

constexpr Tile tiles[] = {Tile::narrow, Tile::square, Tile::large};
constexpr Layout layouts[] = {Layout::cuda_blocks, Layout::input_rows};

/// A device with a queue. Workspaces are as large as the products need, and hold NaN.
class MatmulBench {
 public:
  explicit MatmulBench(int64_t two_part_weights = 0) : two_part_weights_(two_part_weights) {}

  /// Whether fp16 inputs have two parts.
  [[nodiscard]] bool two_parts() const { return two_part_weights_ > 0; }
  [[nodiscard]] Device& device() const { return *device_; }

  void run(std::span<const Product> products, const Tile* tile = nullptr) const {
    Ops::Limits limits{.tokens = products[0].x.rows()};
    for (const Product& p : products) limits.product_inputs += (p.x.cols() + 63) / 64 * 64;
    run(products, cuda::operand_bytes(limits), tile);
  }
  void run(std::span<const Product> products, size_t operand_bytes, const Tile* tile = nullptr) const {
    const Buffer operands = device_->allocate(operand_bytes);
    const std::vector<std::byte> nan(operand_bytes, std::byte{0xff});
    device_->copy_in(operands.data(), nan.data(), operand_bytes);
    cuda::Workspace workspace;
    workspace.operands = operands.data();
    workspace.operand_bytes = operand_bytes;
    workspace.two_part_weights = two_part_weights_;
    if (tile == nullptr) {
      cuda::matmul(products, workspace, queue_.stream());
    } else {
      cuda::matmul(products, *tile, workspace, queue_.stream());
    }
    queue_.synchronize();
  }

  [[nodiscard]] std::vector<float> run(const ProductCase& c, Range tokens, const Tile* tile = nullptr) const {
    const OnDevice on_device(*device_, c, tokens);
    const Product product = on_device.product();
    run({&product, 1}, tile);
    return on_device.result();
  }

 private:
  int64_t two_part_weights_;
  std::unique_ptr<Device> device_ = cuda::open(0);
  cuda::Queue queue_{0};
};

bool is_half(DType dtype) { return dtype == DType::f16 || is_quantized(dtype); }

/// What is multiplied for a token's inputs.
std::vector<double> operand(const ProductCase& c, int64_t token, bool two_parts) {
  const std::vector<float> x = rows_of(c.x, c.layout.inputs, {token, token + 1});
  double largest = 0;
  for (const float v : x) largest = std::max(largest, std::isfinite(v) ? std::abs(double{v}) : 0);
  const int exponent = largest == 0 ? 0 : 14 - std::ilogb(largest);
  std::vector<double> rounded;
  for (const float v : x) {
    if (c.layout.dtype == DType::bf16) {
      rounded.push_back(to_float(to_bfloat16(v)));
    } else if (is_half(c.layout.dtype)) {
      const auto scaled = static_cast<float>(std::ldexp(double{v}, exponent));
      double value = to_float(to_half(scaled));
      if (two_parts && std::isfinite(value))
        value += to_float(to_half(static_cast<float>(double{scaled} - value)));
      rounded.push_back(std::ldexp(value, -exponent));
    } else {
      rounded.push_back(v);
    }
  }
  return rounded;
}

/// A sum in any order; each product and each partial sum is rounded, by tensor cores towards zero.
Estimate dot_of(const std::vector<double>& x, Floats weights, DType dtype) {
  double value = 0, magnitude = 0;
  for (size_t i = 0; i < x.size(); i++) {
    const double product = x[i] * (is_quantized(dtype) ? to_float(to_half(weights[i])) : weights[i]);
    value += product;
    magnitude += std::abs(product);
  }
  if (!std::isfinite(value)) return value;
  const auto count = static_cast<double>(2 * x.size());  // of two parts
  const double rounding = emulated() || dtype == DType::f32 ? fp32_rounding : 2 * fp32_rounding;
  return {value, (count + 2) * rounding * magnitude + (count + 1) * smallest_normal};
}

Estimates expected_of(const ProductCase& c, bool two_parts = false) {
  Estimates all;
  for (int64_t t = 0; t < c.tokens; t++) {
    const std::vector<double> x = operand(c, t, two_parts);
    for (int64_t o = 0; o < c.layout.outputs; o++) {
      const auto i = static_cast<size_t>(t * c.layout.outputs + o);
      const Estimate y = dot_of(x, c.weight.row(o), c.layout.dtype);
      all.push_back(apply(c.epilogue, y, {c.out[i], c.bias[static_cast<size_t>(o)], c.a[i], c.b[i]}));
    }
  }
  return all;
}

std::string words_of(const ProductCase& c) {
  return std::string(name_of(c.layout.dtype)) +
         (c.layout.layout == Layout::input_rows ? ", rows, " : ", blocks, ") +
         std::to_string(c.layout.outputs) + " x " + std::to_string(c.layout.inputs) + ", " +
         std::to_string(c.tokens) + " tokens, epilogue " + std::to_string(static_cast<int>(c.epilogue));
}

/// Each tile gives what is expected, all of them the same bits.
void check_tiles(const MatmulBench& bench, const ProductCase& c) {
  INFO(words_of(c));
  const std::vector<float> result = bench.run(c, {0, c.tokens}, &tiles[0]);
  REQUIRE(mismatch(result, expected_of(c, bench.two_parts())) == "");
  for (const Tile& tile : tiles) REQUIRE(same_bits(bench.run(c, {0, c.tokens}, &tile), result));
}

void for_all_weights(const std::function<void(Layout, DType)>& action) {
  for (const Layout layout : layouts) {
    for (const DType dtype : weight_types) action(layout, dtype);
  }
}

ProductCase with_inputs(MatrixLayout layout, int64_t tokens, const std::vector<float>& numbers,
                        int64_t seed) {
  ProductCase c(layout, Epilogue::none, tokens, seed);
  Random random(static_cast<uint64_t>(seed));
  for (float& v : c.x) v = numbers[static_cast<size_t>(random.index(static_cast<int64_t>(numbers.size())))];
  return c;
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("matmul of a chunk: shapes, in each tile") {
  on_device(4, [] {
    const MatmulBench bench;
    int64_t seed = 1;
    for_all_weights([&](Layout layout, DType dtype) {
      struct {
        int64_t outputs, inputs, tokens;
      } shapes[] = {{1, 1, 2},    {16, 64, 2},  {17, 65, 3},   {15, 63, 16},   {33, 31, 17},
                    {64, 32, 8},  {65, 129, 5}, {130, 100, 9}, {129, 33, 130}, {48, 520, 4},
                    {5, 1000, 7}, {7, 16, 65},  {0, 5, 2},     {5, 0, 2}};
      for (const auto& s : shapes) {
        const Epilogue epilogue = epilogues[static_cast<size_t>(seed) % std::size(epilogues)];
        check_tiles(bench, {{layout, dtype, s.outputs, s.inputs}, epilogue, s.tokens, seed++});
      }
    });
  });
}

TEST_CASE("matmul of a chunk: epilogues, in each tile") {
  on_device(4, [] {
    const MatmulBench bench;
    int64_t seed = 100;
    for (const Epilogue epilogue : epilogues) {
      ProductCase c({layouts[seed % 2], weight_type(seed), 37, 70}, epilogue, 19, seed);
      seed++;
      c.x[0] = NAN;  // goes through all of them
      check_tiles(bench, c);
    }
  });
}

TEST_CASE("matmul of a chunk: a token has the same bits in any chunk and tile") {
  on_device(4, [] {
    const MatmulBench bench;
    int64_t seed = 200;
    for_all_weights([&](Layout layout, DType dtype) {
      const ProductCase c({layout, dtype, 70, 330}, Epilogue::none, 140, seed++);
      INFO(words_of(c));
      const std::vector<float> all = bench.run(c, {0, c.tokens}, &tiles[2]);
      const Range chunks[] = {{0, 2}, {2, 5}, {5, 21}, {21, 38}, {38, 102}, {102, 140}};
      for (const Range& chunk : chunks) {
        const Tile& tile = tiles[static_cast<size_t>(chunk.begin) % 3];
        REQUIRE(same_bits(bench.run(c, chunk, &tile), rows_of(all, c.layout.outputs, chunk)));
        REQUIRE(same_bits(bench.run(c, chunk), rows_of(all, c.layout.outputs, chunk)));
      }
    });
  });
}

TEST_CASE("matmul of a chunk: more products than one launch takes, with shared inputs") {
  on_device(8, [] {
    const MatmulBench bench;
    std::vector<ProductCase> cases;
    std::vector<std::unique_ptr<OnDevice>> on_device;
    std::vector<Product> products;
    for (int64_t i = 0; i < 19; i++) {
      const MatrixLayout layout{layouts[i / 3 % 2], weight_type(i), 10 + 7 * i, i % 5 == 0 ? 90 : 40 + i};
      cases.emplace_back(layout, epilogues[i % 11], 20, i);
      on_device.push_back(std::make_unique<OnDevice>(bench.device(), cases.back(), Range{0, 20}));
      products.push_back(on_device.back()->product());
      // Every fifth has the inputs of the first one.
      if (i % 5 == 0) {
        products.back().x = products[0].x;
        cases.back().x = cases[0].x;
      }
    }
    bench.run(products);
    for (size_t i = 0; i < cases.size(); i++) {
      INFO(words_of(cases[i]));
      const std::vector<float> result = on_device[i]->result();
      CHECK(mismatch(result, expected_of(cases[i])) == "");
      CHECK(same_bits(result, bench.run(cases[i], {0, 20})));
    }
  });
}

TEST_CASE("matmul of a chunk: fp16 inputs of small matrices have two parts") {
  on_device(4, [] {
    const MatmulBench both(70 * 330), one(70 * 330 - 1);
    int64_t seed = 500;
    for_all_weights([&](Layout layout, DType dtype) {
      const Epilogue epilogue = epilogues[static_cast<size_t>(seed) % std::size(epilogues)];
      check_tiles(both, {{layout, dtype, 70, 330}, epilogue, 9, seed++});
      check_tiles(both, {{layout, dtype, 33, 31}, Epilogue::none, 70, seed++});
      ProductCase c({layout, dtype, 70, 330}, Epilogue::none, 5, seed++);
      CHECK(mismatch(one.run(c, {0, 5}), expected_of(c)) == "");
      CHECK(same_bits(one.run(c, {0, 5}), both.run(c, {0, 5})) == !is_half(dtype));
      c.x[3] = INFINITY;
      check_tiles(both, c);
    });
  });
}

TEST_CASE("matmul of a chunk: equal inputs are prepared once, and only within what was reserved") {
  on_device(1, [] {
    const MatmulBench bench(small_matrix);
    const ProductCase half({Layout::cuda_blocks, DType::f16, 30, 100}, Epilogue::none, 5, 1);
    ProductCase eight({Layout::input_rows, DType::i8, 40, 100}, Epilogue::none, 5, 2);
    ProductCase brain({Layout::cuda_blocks, DType::bf16, 30, 100}, Epilogue::none, 5, 3);
    eight.x = brain.x = half.x;
    const OnDevice first(bench.device(), half, {0, 5}), second(bench.device(), eight, {0, 5}),
        third(bench.device(), brain, {0, 5});
    Product products[] = {first.product(), second.product(), third.product()};
    products[1].x = products[2].x = products[0].x;
    const size_t bytes = cuda::operand_bytes({.tokens = 5, .product_inputs = 128});
    bench.run(std::span(products).first(2), bytes);
    CHECK(mismatch(first.result(), expected_of(half, true)) == "");
    CHECK(mismatch(second.result(), expected_of(eight, true)) == "");
    // bf16 needs another form.
    CHECK(error_of([&] { bench.run(products, bytes); }) == "matmul: the inputs exceed what was reserved");
    bench.run(products, 2 * bytes);
    CHECK(mismatch(third.result(), expected_of(brain)) == "");
    CHECK(cuda::operand_bytes({.tokens = 1, .product_inputs = 128}) == 0);
  });
}

TEST_CASE("matmul of a chunk: inputs of all sizes") {
  on_device(4, [] {
    const MatmulBench bench;
    const std::vector<float> numbers[] = {
        {1e30f, -3e38f, 1e20f, 3.4028234e38f},       // too large for fp16
        {1e-30f, -1e-38f, 3e-45f, 1e-42f},           // too small
        {3e-45f, -3e-45f, 0},                        // the smallest
        {1e30f, 1e-30f, -1, 0},                      // what is far below the largest is lost
        {0.0f, -0.0f},                               // nothing
        {65504, 65520, -65519, 32767.99f, 32768},    // about the ends of fp16
        {1.0004883f, -1.0014648f, 1, -2047.5f},      // halfway between fp16 numbers: ties to even
        {1.00390625f, 1.01171875f, -1, 0x1.fffp0f},  // of bf16
    };
    int64_t seed = 300;
    for_all_weights([&](Layout layout, DType dtype) {
      for (const auto& some : numbers) {
        ProductCase c = with_inputs({layout, dtype, 20, 90}, 4, some, seed++);
        if (dtype == DType::bf16 || dtype == DType::f32) {  // the sums stay finite
          for (float& v : c.x) v = std::abs(v) > 1e30f ? std::copysign(1e30f, v) : v;
        }
        check_tiles(bench, c);
      }
    });
  });
}

TEST_CASE("matmul of a chunk: infinities and NaN stay with their token") {
  on_device(4, [] {
    const MatmulBench bench;
    int64_t seed = 400;
    for_all_weights([&](Layout layout, DType dtype) {
      ProductCase c({layout, dtype, 40, 200}, Epilogue::none, 11, seed++);
      const auto at = [&](int64_t token, int64_t input) -> float& {
        return c.x[static_cast<size_t>(token * c.layout.inputs + input)];
      };
      at(1, 0) = NAN;
      at(3, 199) = INFINITY;
      at(4, 70) = -INFINITY;
      at(6, 5) = INFINITY;
      at(6, 150) = -INFINITY;
      at(8, 10) = INFINITY;
      at(8, 11) = NAN;
      for (int64_t i = 0; i < 200; i++) at(9, i) = i % 2 == 0 ? INFINITY : 1e30f;
      check_tiles(bench, c);
      const std::vector<float> result = bench.run(c, {0, 3});
      for (size_t o = 0; o < 40; o++) {
        CHECK(std::isfinite(result[o]));
        CHECK(std::isnan(result[40 + o]));
        CHECK(std::isfinite(result[80 + o]));
      }
    });
  });
}

TEST_CASE("matmul of a chunk: int8 and int4 weights are rounded to fp16") {
  on_device(4, [] {
    const MatmulBench bench;
    for_all_weights([&](Layout layout, DType dtype) {
      if (!is_quantized(dtype)) return;
      ProductCase c({layout, dtype, 40, 70}, Epilogue::none, 3, 1);
      std::vector<float> values(40 * 70);
      Random random(7);
      // Normal and subnormal numbers of fp16 and what is below, in groups of their own.
      for (size_t i = 0; i < values.size(); i++)
        values[i] = std::ldexp(random.normal(), -static_cast<int>(i / 70 % 2 + i % 70 / 32 * 2) * 9);
      c.weight = PackedMatrix(c.layout, values);
      check_tiles(bench, c);
      // What int4 has as padding is beyond fp16 where the largest number is not on its first level.
      for (const float largest : {-65504.0f, 65504.0f}) {
        c.weight = PackedMatrix(c.layout, std::vector<float>(40 * 70, largest));
        check_tiles(bench, c);
      }
    });
  });
}

TEST_CASE("matmul of a chunk: small work has small tiles") {
  const auto choose = [](std::vector<int> outputs, int tokens) { return cuda::choose_tile(outputs, tokens); };
  // Two tokens of a small model, a large one's head, its layers; long chunks.
  CHECK(choose({768, 768, 768}, 2) == Tile::narrow);
  CHECK(choose({2048}, 16) == Tile::narrow);
  CHECK(choose({65536}, 2) == Tile::square);
  CHECK(choose({65536}, 64) == Tile::square);
  CHECK(choose({64, 64}, 256) == Tile::narrow);
  CHECK(choose({2048, 2048, 2048}, 256) == Tile::square);
  CHECK(choose({2048}, 1024) == Tile::large);
  CHECK(choose({4096, 4096, 4096}, 4096) == Tile::large);
}

}  // namespace rwkv::test
