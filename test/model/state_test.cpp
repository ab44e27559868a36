#include "model/state.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "core/error.h"
#include "test/model/checkpoint_model.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};

std::shared_ptr<const Model> model_of(const ModelShape& shape) {
  TemporaryDirectory directory;
  write_checkpoint(directory / "m.pth", make_checkpoint(shape));
  return load_checkpoint(directory / "m.pth", "cpu fp32");
}

State used(const std::shared_ptr<const Model>& model) {
  State state(model);
  run(model, tokens, 8, state);
  return state;
}

}  // namespace

TEST_CASE("state: it starts with zeros, and in version 4 with nothing in the maximum") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    auto model = model_of({.version = version});
    State state(model);
    size_t floats = 0;
    auto values = values_of(state);
    for (size_t i = 0; i < values.size(); i++) {
      floats += values[i].size();
      for (size_t k = 0; k < values[i].size(); k++) {
        bool maximum = version == Version::v4 && i % 3 == 1 && k >= 32;
        CHECK(values[i][k] == (maximum ? -1e30f : 0.0f));
      }
    }
    CHECK(state.bytes() == floats * 4);
    // Two shifts of 16, and 3 rows of 16 or 2 heads of 8 x 8.
    CHECK(floats == 2 * (version == Version::v4 ? 32 + 48 : 32 + 128));
  }
}

TEST_CASE("state: a merged initial state is where it starts, [head, key, value]") {
  for (Version version : {Version::v5_0, Version::v5_1, Version::v5_2, Version::v6, Version::v7}) {
    CAPTURE(name_of(version));
    ModelShape shape{.version = version, .time_state = true};
    CheckpointTensors tensors = make_checkpoint(shape);
    State state(model_of(shape));
    auto values = values_of(state);
    for (size_t layer = 0; layer < 2; layer++) {
      const auto& source = tensor_of(tensors, "blocks." + std::to_string(layer) + ".att.time_state").values;
      for (size_t head = 0; head < 2; head++) {
        for (size_t key = 0; key < 8; key++) {
          for (size_t value = 0; value < 8; value++) {
            CHECK(values[3 * layer + 1][(head * 8 + key) * 8 + value] ==
                  source[(head * 8 + value) * 8 + key]);
          }
        }
      }
      for (size_t part : {0, 2}) CHECK(std::ranges::count(values[3 * layer + part], 0.0f) == 16);
    }
  }
}

TEST_CASE("state: copies go their own way, and reset leads back to the start") {
  for (bool merged : {false, true}) {
    for (Version version : all_versions) {
      if (merged && version == Version::v4) continue;
      CAPTURE(name_of(version));
      auto model = model_of({.version = version, .time_state = merged});
      State state = used(model);
      const State fresh(model);
      CHECK_FALSE(same_bits(state, fresh));
      State copy = state;
      CHECK(same_bits(copy, state));
      run(model, tokens, 3, copy);
      CHECK_FALSE(same_bits(copy, state));
      State assigned(model);
      assigned = state;
      CHECK(same_bits(assigned, state));
      const State& itself = assigned;
      assigned = itself;
      CHECK(same_bits(assigned, state));
      State moved = std::move(assigned);
      CHECK(same_bits(moved, state));
      assigned = copy;
      CHECK(same_bits(assigned, copy));
      state.reset();
      CHECK(same_bits(state, fresh));
      CHECK(same_bits(run(model, tokens, 1, state), run(model, tokens)));
    }
  }
}

TEST_CASE("state: assignment takes the other's model over") {
  auto small = model_of({.version = Version::v4}), large = model_of({.layers = 3, .embd = 32});
  State state = used(small);
  const State other = used(large);
  state = other;
  CHECK(&state.model() == large.get());
  CHECK(same_bits(state, other));
  CHECK(state.bytes() == other.bytes());
  run(large, tokens, 2, state);
  CHECK_FALSE(same_bits(state, other));
}

TEST_CASE("state: names of files tell a version") {
  struct Name {
    std::string text;
    int version;
  };
  for (const Name& n : {Name{"RWKV-4-Pile-169M-20220807-8023.pth", 4},
                        {"RWKV-4-World-0.1B-v1-20230520-ctx4096.pth", 4},
                        {"RWKV-5-World-1B5-v2-20231025-ctx4096.pth", 5},
                        {"RWKV-5.2-World.pth", 5},
                        {"rwkv-x052-3b.pth", 5},
                        {"rwkv-x051a-pile.pth", 5},
                        {"RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth", 6},
                        {"rwkv-x060-chn_single_round_qa-3B-20240516-ctx2048.pth", 6},
                        {"RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.pth", 7},
                        {"rwkv7-g1-0.1b-20250307-ctx4096.pth", 7},
                        {"rwkv_7_state.pth", 7},
                        {"\xe4\xb8\xad\xe6\x96\x87 RWKV6 \xe7\x8a\xb6\xe6\x80\x81.pth", 6},
                        {"rwkv-12.pth", 0},  // numbered by a trainer
                        {"rwkv-40.pth", 0},
                        {"rwkv-65.pth", 0},
                        {"state.pth", 0},
                        {"rwkv_vocab_v20230424.txt", 0},
                        {"x0700.pth", 0},
                        {"", 0}}) {
    CAPTURE(n.text);
    CHECK(version_in_name(n.text) == n.version);
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
