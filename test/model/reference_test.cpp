// Against the Python package. Errors are those of relative_error, with the package's fp32 logits as expected.
#include "model/executor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>

#include "model/checkpoint/pth.h"
#include "model/checkpoint/state_checkpoint.h"
#include "test/model/reference_set.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("model");

namespace rwkv::test {
namespace {

/// Calls test(set, name, model in that strategy) for every model.
template <class Test>
void for_each_model(const std::string& strategy, Test test) {
  for (const ReferenceSet& set : reference_sets()) {
    for (const std::string& name : set.names) {
      CAPTURE(set.directory);
      CAPTURE(name);
      test(set, name, load_checkpoint(set.model(name), strategy));
    }
  }
}

bool is_deep(const Config& config) { return config.n_layer > 6; }
double fp32_bound(const Config& config) { return is_deep(config) ? 1e-4 : 1e-5; }

/// The package's own error in a precision.
double package_error(const ReferenceSet& set, const std::string& name, const std::string& precision) {
  return relative_error(set.expected(name, precision), set.expected(name, "fp32"));
}

/// The package's state of a layer, as State has it: att_shift, att, ffn_shift. Moves `at` behind it.
std::vector<std::vector<float>> package_layer(const Config& c, const std::vector<float>& values, size_t& at) {
  auto next = [&](int64_t count) {
    std::vector<float> part(values.begin() + static_cast<std::ptrdiff_t>(at),
                            values.begin() + static_cast<std::ptrdiff_t>(at) + count);
    at += static_cast<size_t>(count);
    return part;
  };
  std::vector<float> att_shift = next(c.n_embd);
  std::vector<float> att = next(c.version == Version::v4 ? 3 * c.n_att : c.n_att * c.head_size);
  if (c.version == Version::v7) {  // the package has [head, value, key]
    std::vector<float> swapped(att.size());
    auto n = static_cast<size_t>(c.head_size);
    for (size_t i = 0; i < att.size(); i++) swapped[i / (n * n) * n * n + i % n * n + i / n % n] = att[i];
    att = swapped;
  }
  return {att_shift, att, next(c.n_embd)};
}

}  // namespace

TEST_CASE("reference: the instruction set that RWKV_CPU names is the one that runs") {
  auto model = load_checkpoint(data_path("reference/models/v4.pth"), "cpu fp32");
  if (const char* name = std::getenv("RWKV_CPU")) {
    CHECK(model->device(0).description().find(std::string("(") + name + ",") != std::string::npos);
  }
}

TEST_CASE("reference: fp32 logits agree") {
  for_each_model("cpu fp32", [](const ReferenceSet& set, const std::string& name, const auto& model) {
    CHECK(relative_error(run(model, set.tokens), set.expected(name, "fp32")) <= fp32_bound(model->config()));
  });
}

TEST_CASE("reference: in bf16 and fp16 the error is at most the package's") {
  for (const std::string precision : {"bf16", "fp16"}) {
    CAPTURE(precision);
    for_each_model("cpu " + precision,
                   [&](const ReferenceSet& set, const std::string& name, const auto& model) {
                     double error = relative_error(run(model, set.tokens), set.expected(name, "fp32"));
                     CHECK(error <= package_error(set, name, precision));
                   });
  }
}

TEST_CASE("reference: in int8 the error is close to the package's") {
  for (const ReferenceSet& set : reference_sets()) {
    double logarithms = 0;
    for (const std::string& name : set.names) {
      CAPTURE(name);
      auto model = load_checkpoint(set.model(name), "cpu fp32i8");
      double error = relative_error(run(model, set.tokens), set.expected(name, "fp32"));
      double ratio = error / package_error(set, name, "fp32i8");
      CHECK(ratio <= (is_deep(model->config()) ? set.int8_bound_deep : set.int8_bound));
      logarithms += std::log(ratio);
    }
    CAPTURE(set.directory);
    CHECK(std::exp(logarithms / static_cast<double>(set.names.size())) <= set.int8_bound_mean);
  }
}

// The rest of an int8 model is in the prefix type, so that both errors come together.
TEST_CASE("reference: int8 beside bf16 and fp16 adds at most that type's error") {
  for (const std::string type : {"bf16", "fp16"}) {
    CAPTURE(type);
    for_each_model(
        "cpu " + type + "i8", [&](const ReferenceSet& set, const std::string& name, const auto& model) {
          double error = relative_error(run(model, set.tokens), set.expected(name, "fp32"));
          double bound = is_deep(model->config()) ? set.int8_bound_deep : set.int8_bound;
          CHECK(error <= bound * package_error(set, name, "fp32i8") + package_error(set, name, type));
        });
  }
}

// The package has no int4. Of normally distributed weights int4 loses 14 times what int8 does.
TEST_CASE("reference: in int4 the error is about 14 times that of int8") {
  for (const ReferenceSet& set : reference_sets()) {
    double logarithms = 0;
    for (const std::string& name : set.names) {
      CAPTURE(name);
      std::vector<float> expected = set.expected(name, "fp32");
      auto error = [&](const char* strategy) {
        return relative_error(run(load_checkpoint(set.model(name), strategy), set.tokens), expected);
      };
      double ratio = error("cpu fp32i4") / error("cpu fp32i8");
      CHECK(ratio <= 28);
      logarithms += std::log(ratio);
    }
    CHECK(std::exp(logarithms / static_cast<double>(set.names.size())) <= 16);
  }
}

TEST_CASE("reference: the state after all tokens is the package's") {
  for_each_model("cpu fp32", [](const ReferenceSet& set, const std::string& name, const auto& model) {
    const Config& config = model->config();
    State state(model);
    std::vector<float> logits = run(model, set.tokens, 256, state);
    std::vector<float> expected = set.expected(name, "fp32.seq");
    auto at = static_cast<size_t>(config.n_vocab);
    CHECK(relative_error(std::span(logits).last(at), std::span(expected).first(at)) <= fp32_bound(config));
    auto values = values_of(state);
    for (size_t layer = 0; layer < static_cast<size_t>(config.n_layer); layer++) {
      auto parts = package_layer(config, expected, at);
      for (size_t part = 0; part < 3; part++) {
        CAPTURE(layer);
        CAPTURE(part);
        CHECK(relative_error(values[3 * layer + part], parts[part]) <= fp32_bound(config));
      }
    }
    CHECK(at == expected.size());
  });
}

TEST_CASE("reference: a trained initial state goes in the right way round, from .pth and converted") {
  TemporaryDirectory directory;
  int states = 0;
  for_each_model("cpu fp32", [&](const ReferenceSet& set, const std::string& name, const auto& model) {
    std::string path = set.state(name), converted = directory / "state";
    if (path.empty()) return;
    states++;
    State state = load_session(path, model).state;
    std::vector<float> logits = run(model, set.tokens, 1, state);
    CHECK(relative_error(logits, set.expected(name, "fp32.state")) <= fp32_bound(model->config()));
    convert_state(Checkpoint::open(path), converted);
    State again = load_session(converted, model).state;
    CHECK(same_bits(run(model, set.tokens, 1, again), logits));
    CHECK(same_bits(state, again));
  });
  CHECK(states >= 3);
}

// What a part of the layers loses is at most what all of them would: the errors of the parts add up at most.
TEST_CASE("reference: a split strategy's error is at most the sum of its precisions'") {
  struct Split {
    std::string strategy;
    std::vector<std::string> precisions;
  };
  const std::vector<Split> splits = {
      {"cpu fp32i8 *2 -> cpu bf16", {"fp32i8", "bf16"}},
      {"cpu fp16 *1 -> cpu fp32i8", {"fp16", "fp32i8"}},
      {"cpu fp32 *1 -> cpu bf16", {"bf16"}},
      {"cpu bf16 -> cpu fp32", {"bf16"}},
  };
  for (const Split& split : splits) {
    CAPTURE(split.strategy);
    for_each_model(split.strategy, [&](const ReferenceSet& set, const std::string& name, const auto& model) {
      std::vector<float> logits = run(model, set.tokens), fp32 = set.expected(name, "fp32");
      double bound = 0;
      for (const std::string& precision : split.precisions) {
        double scale = precision != "fp32i8"      ? 1
                       : is_deep(model->config()) ? set.int8_bound_deep
                                                  : set.int8_bound;
        bound += scale * package_error(set, name, precision);
      }
      CHECK(relative_error(logits, fp32) <= bound);
      // One token alone may lose nothing to bf16.
      const auto all = static_cast<int64_t>(set.tokens.size());
      const std::vector<float> chunk = run(model, set.tokens, all);
      for (const std::string& precision : split.precisions) {
        auto pure = load_checkpoint(set.model(name), "cpu " + precision);
        bool all_layers = split.strategy.find("*2") != std::string::npos && model->config().n_layer == 1 &&
                          precision == split.precisions[0];
        CHECK(same_bits(chunk, run(pure, set.tokens, all)) == all_layers);
      }
    });
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
