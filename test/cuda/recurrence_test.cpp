// The recurrences: cuda/kernels/wkv4.cu, wkv5.cu, wkv7.cu. test/ops has more shapes.
#include <doctest/doctest.h>

#include <cmath>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/matvec_bench.h"

namespace rwkv::test {
namespace {

Implementation cuda_device() {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(cuda::open(0));
  return {std::move(devices), {Layout::cuda_blocks}, Rounding::cuda};
}

/// Around the sizes from which on a state needs more registers, and memory instead.
constexpr int64_t head_sizes[] = {1, 2, 7, 8, 20, 32, 33, 64, 100, 128, 129, 256};

/// Each head size, with 1 to 3 heads and 1 to 9 tokens, for the four orders of threads.
template <class MakeSequence>
void check_head_sizes(MakeSequence make_sequence) {
  int64_t seed = 0;
  on_device(4, [&] {
    const Implementation device = cuda_device();
    for (int64_t size : head_sizes) {
      const Heads shape{1 + seed % 3, size, size > 128 ? 1 + seed % 3 : 1 + seed * 5 % 9};
      CAPTURE(shape.heads);
      CAPTURE(shape.size);
      CAPTURE(shape.tokens);
      CAPTURE(seed);
      check_sequence(device, make_sequence(shape, seed++));
    }
  });
}

/// One token of a recurrence on a device. Each input lies somewhere else, for odd seeds `out` in the place of
/// r; what the inputs hold that low-rank products give, is NaN.
struct OneToken {
  Random random;
  Device* device;
  int64_t heads, size, place;
  std::vector<DeviceTensor> tensors{};

  OneToken(Device& device, Heads shape, int64_t seed)
      : random(static_cast<uint64_t>(seed)),
        device(&device),
        heads(shape.heads),
        size(shape.size),
        place(seed) {
    tensors.reserve(32);
  }
  const Tensor& add(std::initializer_list<int64_t> sizes, const std::vector<float>& values) {
    tensors.emplace_back(*device, sizes, values, Place::number(place++));
    return tensors.back();
  }
  const Tensor& token(double deviation = 1) {
    return add({1, heads * size}, random.normals(heads * size, deviation));
  }
  const Tensor& vector() { return add({heads * size}, random.normals(heads * size)); }
  const Tensor& nothing() { return add({1, heads * size}, std::vector<float>(count(), NAN)); }
  const Tensor& state() {
    tensors.emplace_back(*device, std::initializer_list<int64_t>{heads, size, size},
                         random.normals(heads * size * size, 0.5), Place{place++ % 3, 0, false});
    return tensors.back();
  }
  [[nodiscard]] size_t count() const { return static_cast<size_t>(heads * size); }
};

/// Low-rank products whose outputs are these tensors, with every type of weight that they may have and any
/// rank.
class LowRanks {
 public:
  LowRanks(Device& device, int64_t outputs, std::span<const Epilogue> epilogues, int64_t seed) {
    constexpr DType types[] = {DType::f32, DType::f16, DType::bf16};
    constexpr int64_t ranks[] = {64, 1, 32, 200, 7, 128, 96, 550};
    for (Epilogue epilogue : epilogues) {
      const auto i = static_cast<size_t>(seed++);
      cases_.push_back(one_token(Layout::cuda_blocks, types[i % 3], outputs, ranks[i % 8], epilogue, seed));
    }
    for (const ProductCase& c : cases_)
      operands_.push_back(std::make_unique<OnDevice>(device, c, Range{0, 1}));
  }
  [[nodiscard]] std::vector<Product> products(std::span<const Tensor> outputs) const {
    std::vector<Product> products;
    for (size_t i = 0; i < operands_.size(); i++) {
      products.push_back(operands_[i]->product());
      products.back().out = outputs[i];
    }
    return products;
  }

 private:
  std::vector<ProductCase> cases_;
  std::vector<std::unique_ptr<OnDevice>> operands_;
};

struct Result {
  std::vector<float> out, state;
};

/// Runs `launch` with the products inside it, or before it in launches of their own.
template <class Launch>
void run_token(const MatvecBench& bench, const std::vector<Product>& products, bool inside, Launch launch) {
  if (!inside) bench.run(products);
  launch(inside ? std::span<const Product>(products) : std::span<const Product>{}, bench.queue().stream());
  bench.queue().synchronize();
}

Result run_wkv5(const MatvecBench& bench, Heads shape, int64_t seed, bool inside) {
  OneToken t(bench.device(), shape, seed);
  const Tensor &decay = t.nothing(), &r = t.token(), &k = t.token(), &v = t.token(), &state = t.state();
  const DeviceTensor &kept = t.tensors.back(), &given = t.tensors.front();
  const Tensor& gate = seed % 4 == 2 ? Tensor{} : t.token();
  const Tensor& out = seed % 2 == 1 ? r : t.nothing();
  const DeviceTensor& result = seed % 2 == 1 ? t.tensors[1] : t.tensors.back();
  const Wkv5 wkv{r, k, v, decay, t.vector(), {t.vector(), t.vector()}, gate, state, out};
  constexpr Epilogue epilogue[] = {Epilogue::decay6};
  const LowRanks low_ranks(bench.device(), shape.heads * shape.size, epilogue, seed);
  run_token(bench, low_ranks.products({&decay, 1}), inside,
            [&](auto products, cudaStream_t stream) { cuda::wkv5(wkv, products, stream); });
  CHECK(given.changed() == !inside);
  return {finish(result, {}), finish(kept, {})};
}

/// The first layer has no gate of values; its three products, or some of them, may be inside.
Result run_wkv7(const MatvecBench& bench, Heads shape, int64_t seed, bool inside) {
  OneToken t(bench.device(), shape, seed);
  const Tensor given[] = {t.nothing(), t.nothing(), t.nothing(), t.nothing()};
  const Tensor &r = t.token(), &k = t.token(), &v = t.token(), &v_first = t.token(), &state = t.state();
  const DeviceTensor& kept = t.tensors.back();
  const bool first = seed % 3 == 2;
  const Tensor& out = seed % 2 == 1 ? r : t.nothing();
  const DeviceTensor& result = seed % 2 == 1 ? t.tensors[4] : t.tensors.back();
  const auto& [decay, a, g, v_gate] = given;
  const Wkv7 wkv{r,
                 decay,
                 k,
                 v,
                 a,
                 g,
                 first ? Tensor{} : v_first,
                 first ? Tensor{} : v_gate,
                 t.vector(),
                 t.vector(),
                 t.vector(),
                 {t.vector(), t.vector()},
                 state,
                 out};
  constexpr Epilogue epilogues[] = {Epilogue::decay7, Epilogue::biased_sigmoid, Epilogue::none,
                                    Epilogue::biased_sigmoid};
  const size_t count = first ? 3 : 4;
  const LowRanks low_ranks(bench.device(), shape.heads * shape.size, std::span(epilogues).first(count), seed);
  run_token(bench, low_ranks.products(given), inside,
            [&](auto products, cudaStream_t stream) { cuda::wkv7(wkv, products, stream); });
  for (size_t i = 0; i < count; i++) CHECK(t.tensors[i].changed() == !inside);
  return {finish(result, {}), finish(kept, {})};
}

/// A weight's row has the same dot product in every kernel, so the results have the same bits.
template <class Run>
void check_low_ranks(Run run) {
  int64_t seed = 0;
  on_device(4, [&] {
    const MatvecBench bench;
    for (int64_t size : head_sizes) {
      const Heads shape{1 + seed % 3, size, 1};
      CAPTURE(shape.heads);
      CAPTURE(shape.size);
      CAPTURE(seed);
      const Result fused = run(bench, shape, seed, true), unfused = run(bench, shape, seed, false);
      CHECK(same_bits(fused.out, unfused.out));
      CHECK(same_bits(fused.state, unfused.state));
      CHECK(std::ranges::none_of(fused.out, [](float x) { return std::isnan(x); }));
      seed++;
    }
  });
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("wkv4: any number of channels and tokens") {
  int64_t seed = 0;
  on_device(4, [&] {
    const Implementation device = cuda_device();
    for (int64_t width : {1, 31, 32, 33, 100}) {
      CAPTURE(width);
      CAPTURE(seed);
      check_sequence(device, wkv4_sequence(width, 1 + seed % 9, seed));
      seed++;
    }
  });
}

TEST_CASE("wkv5: heads of any size, one decay for all tokens") {
  check_head_sizes([](Heads shape, int64_t seed) { return wkv5_sequence(shape, false, seed); });
}

TEST_CASE("wkv5: heads of any size, a decay for each token") {
  check_head_sizes([](Heads shape, int64_t seed) { return wkv5_sequence(shape, true, seed); });
}

TEST_CASE("wkv7: heads of any size") {
  check_head_sizes([](Heads shape, int64_t seed) { return wkv7_sequence(shape, seed); });
}

TEST_CASE("wkv5: a low-rank decay inside has the bits that it has outside") { check_low_ranks(run_wkv5); }

TEST_CASE("wkv7: low-rank products inside have the bits that they have outside") {
  check_low_ranks(run_wkv7);
}

TEST_CASE("a product that is no input of the recurrence is refused") {
  on_device(1, [] {
    const MatvecBench bench;
    OneToken t(bench.device(), {1, 8, 1}, 1);
    const Tensor &x = t.token(), &other = t.token(), &state = t.state(), &vector = t.vector();
    const Wkv5 wkv{x, x, x, x, vector, {vector, vector}, {}, state, x};
    constexpr Epilogue epilogue[] = {Epilogue::decay6};
    const LowRanks low_ranks(bench.device(), 8, epilogue, 1);
    CHECK(error_of([&] {
            cuda::wkv5(wkv, low_ranks.products({&other, 1}), bench.queue().stream());
          }) == "a low-rank product is none of this token's inputs of the recurrence");
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
