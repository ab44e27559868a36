#include "model/executor.h"

#include <doctest/doctest.h>

#include <thread>

#include "core/error.h"
#include "test/allocations.h"
#include "test/model/checkpoint_model.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("model");

namespace rwkv::test {
namespace {

const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 0, 19, 19, 0, 11};

/// A random model on the CPU, and the directory that its checkpoint lies in.
struct Fixture {
  TemporaryDirectory directory;

  [[nodiscard]] std::shared_ptr<const Model> model(const ModelShape& shape,
                                                   const std::string& strategy = "cpu fp32",
                                                   int threads = 1) const {
    std::string path = directory / "model.pth";
    write_checkpoint(path, make_checkpoint(shape));
    return load_checkpoint(path, strategy, threads);
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture,
                  "executor: a token outside the vocabulary is refused, and the state stays as it was") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    auto loaded = model({.version = version});
    Executor executor(loaded, 2);
    State state(loaded);
    std::vector<float> logits(20), before(20);
    executor.forward(tokens, state, before);
    const State kept = state;
    for (int32_t bad : {-1, 20, INT32_MIN, INT32_MAX}) {
      CAPTURE(bad);
      std::vector<int32_t> wrong = {1, 2, 3, 4, bad};
      CHECK(error_of([&] { executor.forward(wrong, state, logits); }) ==
            "token " + std::to_string(bad) + " is outside the model's vocabulary (0 to 19)");
      CHECK(same_bits(state, kept));
    }
    CHECK(logits == std::vector<float>(20));
  }
}

TEST_CASE_FIXTURE(Fixture, "executor: what does not go together is refused") {
  auto a = model({}), b = model({});
  Executor executor(a, 4);
  State of_a(a), of_b(b);
  std::vector<float> logits(20);
  CHECK(error_of([&] { executor.forward(tokens, of_b, logits); }) ==
        "forward: the state belongs to another model");
  std::vector<float> odd(21);
  CHECK(error_of([&] { executor.forward(tokens, of_a, odd); }) ==
        "forward: room for 21 logits; it must be for one token (20) or for all");
  CHECK(same_bits(of_a, State(a)));
  for (int64_t chunk : {int64_t{-1}, int64_t{0}, int64_t{65537}, INT64_MAX}) {
    CHECK(error_of([&] { Executor(a, chunk); }) ==
          "chunk " + std::to_string(chunk) + ": from 1 to 65536 tokens");
  }
}

TEST_CASE_FIXTURE(Fixture, "executor: no tokens change nothing") {
  auto loaded = model({});
  Executor executor(loaded);
  State state(loaded);
  executor.forward(tokens, state, {});
  const State kept = state;
  std::vector<float> logits(20, 7.0f);
  CHECK(executor.forward({}, state, logits) == 0);
  CHECK(executor.forward({}, state, {}) == 0);
  CHECK(same_bits(state, kept));
}

TEST_CASE_FIXTURE(Fixture, "executor: a call can be stopped between chunks") {
  auto loaded = model({});
  Executor executor(loaded, 3);
  State state(loaded), expected(loaded);
  std::vector<int64_t> asked;
  int64_t done = executor.forward(tokens, state, {}, [&](int64_t count) {
    asked.push_back(count);
    return count >= 9;
  });
  CHECK(done == 9);
  CHECK(asked == std::vector<int64_t>{3, 6, 9});
  executor.forward(std::span(tokens).first(9), expected, {});
  CHECK(same_bits(state, expected));
}

TEST_CASE_FIXTURE(Fixture, "executor: after construction nothing is allocated, on any thread") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    for (const std::string strategy : {"cpu fp32", "cpu bf16", "cpu fp16i8", "cpu fp32i8 *1 -> cpu bf16"}) {
      CAPTURE(strategy);
      for (int threads : {1, 2}) {
        CAPTURE(threads);
        auto loaded = model({.version = version, .layers = 3, .embd = 64, .ffn = 100}, strategy, threads);
        Executor executor(loaded, 7);
        State state(loaded);
        std::vector<float> all(tokens.size() * 20), last(20);
        // The system may start a thread late, and allocates for it then.
        if (threads > 1) executor.forward(tokens, state, last);
        uint64_t before = allocations();
        executor.forward(tokens, state, all);
        executor.forward(tokens, state, last);
        for (const int32_t& token : tokens) executor.forward({&token, 1}, state, last);
        CHECK(allocations() == before);
      }
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "executor: several share a model on threads of their own") {
  for (Version version : {Version::v4, Version::v6, Version::v7}) {
    CAPTURE(name_of(version));
    auto loaded = model({.version = version, .embd = 64}, "cpu fp32", 2);
    std::vector<float> expected = run(loaded, tokens);
    std::vector<std::vector<float>> results(3);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < results.size(); i++) {
      threads.emplace_back([&, i] { results[i] = run(loaded, tokens, static_cast<int64_t>(i) + 1); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : results) CHECK(same_bits(result, expected));
  }
}

TEST_CASE_FIXTURE(Fixture, "executor: it keeps its model") {
  std::unique_ptr<Executor> executor;
  std::unique_ptr<State> state;
  {
    auto loaded = model({});
    executor = std::make_unique<Executor>(loaded, 4);
    state = std::make_unique<State>(loaded);
  }
  std::vector<float> logits(20);
  executor->forward(tokens, *state, logits);
  std::vector<float> expected = run(model({}), tokens);
  CHECK(same_bits(logits, std::span(expected).last(20)));
}

TEST_CASE_FIXTURE(Fixture, "executor: any lengths of calls give the same bits") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    auto loaded = model({.version = version}, version == Version::v7 ? "cpu fp32" : "cpu fp16");
    std::vector<float> expected = run(loaded, tokens);
    for (size_t first = 1; first < tokens.size(); first++) {
      Executor executor(loaded, 5);
      State state(loaded);
      std::vector<float> logits(tokens.size() * 20);
      executor.forward(std::span(tokens).first(first), state, std::span(logits).first(first * 20));
      executor.forward(std::span(tokens).subspan(first), state, std::span(logits).subspan(first * 20));
      CHECK(same_bits(logits, expected));
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
