#include "model/statistics.h"

#include <doctest/doctest.h>

#include <cmath>

#include "model/checkpoint/convert.h"
#include "test/model/checkpoint_model.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                infinite = std::numeric_limits<float>::infinity();

bool near(const Statistics& a, const Statistics& b, double bound) {
  return a.finite == b.finite && a.nan == b.nan && a.infinite == b.infinite &&
         std::abs(a.min - b.min) <= bound && std::abs(a.max - b.max) <= bound &&
         std::abs(a.mean() - b.mean()) <= bound && std::abs(a.rms() - b.rms()) <= bound;
}

/// As the form has it: what the values are expected to be.
Statistics expected_of(const CheckpointTensor& tensor) {
  Statistics s;
  s.add(tensor.values);
  return s;
}

}  // namespace

TEST_CASE("statistics: smallest, largest, mean, root of the mean square, and what is no number") {
  Statistics s;
  s.add(std::vector<float>{3, nan, -4, infinite, 1, -infinite});
  CHECK(s.finite == 3);
  CHECK(s.nan == 1);
  CHECK(s.infinite == 2);
  CHECK(s.min == -4);
  CHECK(s.max == 3);
  CHECK(s.mean() == 0);
  CHECK(s.rms() == doctest::Approx(std::sqrt(26.0 / 3)));
  Statistics both;
  both.add(s);
  both.add(Statistics());
  both.add(s);
  CHECK(both.finite == 6);
  CHECK(both.infinite == 4);
  CHECK(both.min == -4);
  CHECK(both.rms() == doctest::Approx(s.rms()));
  Statistics none;
  none.add(std::vector<float>{nan});
  CHECK(none.finite == 0);
  CHECK(none.min > none.max);
}

TEST_CASE("statistics: of a checkpoint's tensors, with any number of threads") {
  TemporaryDirectory directory;
  CheckpointTensors tensors = make_checkpoint({.embd = 40, .ffn = 3333, .vocab = 70, .dtype = DType::f32});
  tensor_of(tensors, "blocks.1.ffn.key.weight").values[77777] = nan;
  write_checkpoint(directory / "m.pth", tensors);
  Checkpoint checkpoint = Checkpoint::open(directory / "m.pth");
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const CheckpointTensor& t : tensors) {
      CAPTURE(t.name);
      CHECK(near(statistics_of(checkpoint, *checkpoint.find(t.name), pool), expected_of(t), 1e-9));
    }
  }
}

// Widths that no layout divides: padding must not count. Integers are off by half a step at most.
TEST_CASE("statistics: of a model's tensors, in every form, without padding") {
  struct Case {
    const char* strategy;
    double bound;
  };
  TemporaryDirectory directory;
  CheckpointTensors tensors = make_checkpoint({.embd = 40, .ffn = 51, .vocab = 37});
  write_checkpoint(directory / "m.pth", tensors);
  ThreadPool pool(2);
  for (const Case& c : std::initializer_list<Case>{{"cpu fp32", 1e-6},
                                                   {"cpu bf16", 0.02},
                                                   {"cpu fp16", 0.005},
                                                   {"cpu fp32i8", 0.02},
                                                   {"cpu fp32i4", 0.4},
                                                   {"cuda fp32", 1e-6},
                                                   {"cuda fp16", 0.005},
                                                   {"cuda fp16i8", 0.02},
                                                   {"cuda fp16i4", 0.4}}) {
    CAPTURE(c.strategy);
    ConvertOptions options;
    options.strategy = c.strategy;
    ModelFile model = convert_in_memory(Checkpoint::open(directory / "m.pth"), options);
    size_t compared = 0;
    for (const ModelTensor& t : model.tensors) {
      if (t.name == "emb.weight" || t.spec.role == Role::vector) continue;  // computed from others
      CAPTURE(t.name);
      compared++;
      Statistics s = statistics_of(t, model.bytes_of(t.name), pool);
      CHECK(near(s, expected_of(tensor_of(tensors, t.name)), c.bound));
    }
    CHECK(compared > 20);
    ModelTensor vector = model.tensors[1];
    REQUIRE(vector.spec.role == Role::vector);
    CHECK(statistics_of(vector, model.bytes_of(vector.name), pool).finite == 40);
    CHECK(statistics_of(model.tensors[0], model.bytes_of("emb.weight"), pool).finite == 40 * 37);
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
