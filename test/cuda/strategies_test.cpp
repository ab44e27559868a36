// Whole models under CUDA strategies, against the Python package and, in int4, the CPU.
#include <doctest/doctest.h>

#include <cstdlib>

#include "model/executor.h"
#include "model/state.h"
#include "test/cuda/device_under_test.h"
#include "test/model/checkpoint_model.h"
#include "test/model/reference_set.h"
#include "test/model/run.h"

TEST_SUITE_BEGIN("cuda-model");

namespace rwkv::test {
namespace {

struct Case {
  const char* strategy;
  const char* precision;  ///< the package's, whose error bounds ours
};
int devices_of(std::string_view strategy) {
  return strategy.find("cuda:1") == std::string_view::npos ? 1 : 2;
}
constexpr Case cases[] = {
    {"cuda fp32", "fp32"},
    {"cuda fp16", "fp16"},
    {"cuda bf16", "bf16"},
    {"cuda fp16i8", "fp32i8"},
    {"cuda fp32i8", "fp32i8"},
    {"cuda fp16i8 *1 -> cuda fp16", "fp32i8"},
    {"cuda fp16i8 *1+", "fp32i8"},
    {"cuda fp16 *0+", "fp16"},
    {"cuda fp16 *1 -> cpu fp32", "fp16"},
    {"cpu fp32 *1 -> cuda fp16", "fp16"},
    {"cuda:0 fp16 *1 -> cuda:1 fp16", "fp16"},
    {"cuda:1 fp32 *1 -> cpu fp32 *1 -> cuda:0 fp32", "fp32"},
    {"cuda fp16i4", "fp16"},
    {"cuda fp16i4 *1+", "fp16"},
};

/// What the logits are compared with. The package has no int4; there the CPU has the same weights, and what
/// differs from it is what fp16 loses: in the other matrices, and in chunks, whose weights are multiplied as
/// fp16 whatever stands before i4.
std::vector<float> expected_of(const ReferenceSet& set, const std::string& name,
                               const std::string& strategy) {
  if (strategy.find("i4") == std::string::npos) return set.expected(name, "fp32");
  return run(load_checkpoint(set.model(name), "cpu fp32i4"), set.tokens);
}

double bound(const ReferenceSet& set, const std::string& name, const std::string& precision, bool deep) {
  if (precision == "fp32") return deep ? 1e-4 : 1e-5;
  double package = relative_error(set.expected(name, precision), set.expected(name, "fp32"));
  return precision == "fp32i8" ? package * (deep ? set.int8_bound_deep : set.int8_bound) : package;
}

/// How many seeds each case has; RWKV_CUDA_RUNS sets another number.
int runs() {
  const char* given = std::getenv("RWKV_CUDA_RUNS");
  return given == nullptr ? 1 : std::atoi(given);
}

void check_model(const ReferenceSet& set, const std::string& name, const Case& c) {
  CAPTURE(name);
  CAPTURE(c.strategy);
  auto model = load_checkpoint(set.model(name), c.strategy);
  std::vector<float> expected = expected_of(set, name, c.strategy);
  double limit = bound(set, name, c.precision, model->config().n_layer > 6);
  for (int64_t chunk : {1, 7, 64}) {
    CAPTURE(chunk);
    CHECK(relative_error(run(model, set.tokens, chunk), expected) <= limit);
  }
}

}  // namespace

TEST_CASE("strategies: every model agrees with the package under every kind of CUDA strategy") {
  int number = 0;
  for (const ReferenceSet& set : reference_sets()) {
    for (const std::string& name : set.names) {
      for (const Case& c : cases) {
        on_devices({.count = devices_of(c.strategy), .first_run = number++}, runs(),
                   [&] { check_model(set, name, c); });
      }
    }
  }
}

TEST_CASE("strategies: layers on the CPU give the same bits as without CUDA") {
  on_device(4, [] {
    for (const ReferenceSet& set : reference_sets()) {
      std::string path = set.model(set.names.front());
      auto mixed = load_checkpoint(path, "cpu bf16 *1 -> cuda fp32");
      auto cpu = load_checkpoint(path, "cpu bf16");
      State a(mixed), b(cpu);
      run(mixed, set.tokens, 5, a);
      run(cpu, set.tokens, 5, b);
      for (size_t part = 0; part < 3; part++) CHECK(same_bits(values_of(a)[part], values_of(b)[part]));
    }
  });
}

TEST_CASE("strategies: a conversation is saved, copied and resumed on another device") {
  TemporaryDirectory directory;
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    std::string path = directory / "model.pth", file = directory / "state";
    write_checkpoint(path, make_checkpoint({.version = version, .layers = 3}));
    const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6}, more = {5, 3, 5};
    on_device(2, [&] {
      auto model = load_checkpoint(path, "cuda fp32 *1+"), other = load_checkpoint(path, "cpu fp32");
      State state(model);
      run(model, tokens, 3, state);
      State copy = state;
      std::vector<float> expected = run(model, more, 1, state);
      CHECK(same_bits(run(model, more, 1, copy), expected));
      copy.reset();
      run(model, tokens, 3, copy);
      save_session(file, {copy, tokens, {}});
      State resumed = load_session(file, model).state;
      CHECK(same_bits(run(model, more, 1, resumed), expected));
      State elsewhere = load_session(file, other).state;
      CHECK(relative_error(run(other, more, 1, elsewhere), expected) <= 1e-5);
    });
  }
}

TEST_CASE("strategies: without logits, too, a state may be copied as soon as its tokens have been run") {
  TemporaryDirectory directory;
  std::string path = directory / "model.pth";
  write_checkpoint(path, make_checkpoint({.version = Version::v7, .layers = 3}));
  const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6}, more = {5, 3, 5};
  for (const char* strategy : {"cuda fp32", "cuda fp32 *1+", "cuda:0 fp32 *1 -> cuda:1 fp32"}) {
    CAPTURE(strategy);
    on_devices({.count = devices_of(strategy)}, 4, [&] {
      auto model = load_checkpoint(path, strategy);
      State waited(model);
      run(model, tokens, 8, waited);
      std::vector<float> expected = run(model, more, 1, waited);
      Executor executor(model, 8);
      State state(model);
      executor.forward(tokens, state, {});
      State copy = state;
      CHECK(same_bits(run(model, more, 1, copy), expected));
    });
  }
}

TEST_CASE("strategies: a trained initial state takes effect") {
  on_device(2, [] {
    for (const ReferenceSet& set : reference_sets()) {
      for (const std::string& name : set.names) {
        if (set.state(name).empty()) continue;
        CAPTURE(name);
        auto model = load_checkpoint(set.model(name), "cuda fp32 *0+");
        State state = load_session(set.state(name), model).state;
        CHECK(relative_error(run(model, set.tokens, 1, state), set.expected(name, "fp32.state")) <= 1e-4);
      }
    }
  });
}

}  // namespace rwkv::test

TEST_SUITE_END();
