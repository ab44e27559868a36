// Operators that run in one launch give what they give in launches of their own.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/small_model.h"

namespace rwkv::test {
namespace {

struct Result {
  std::vector<float> logits;
  std::vector<std::byte> state;
};

/// A chunk, then single tokens.
template <class Wrap>
Result run(const SmallModel& model, Ops& ops, Wrap wrap) {
  constexpr int32_t tokens[] = {3, 17, 39, 0, 5, 5, 21};
  Result result;
  SmallModel::State state = model.make_state();
  for (size_t at = 0; at < std::size(tokens);) {
    size_t count = at == 0 ? 3 : 1;
    model.embed(ops, std::span(tokens).subspan(at, count));
    model.run_layers(wrap(ops), state, static_cast<int64_t>(count));
    Tensor logits = model.logits(static_cast<int64_t>(count));
    std::vector<float> values(static_cast<size_t>(logits.elements()));
    ops.download(values.data(), logits);
    result.logits.insert(result.logits.end(), values.begin(), values.end());
    at += count;
  }
  result.state = model.bytes(state);
  return result;
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("operators of a token in one launch give the bits of separate launches, in all versions") {
  int turn = 0;
  on_device(4, [&] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    Separately separately(*ops);
    for (Version version : versions) {
      constexpr DType types[] = {DType::f32, DType::f16, DType::bf16};
      constexpr Quantization quantizations[] = {Quantization::int8, Quantization::none, Quantization::int4,
                                                Quantization::none};
      DType type = types[turn % 3];
      Quantization quantization = quantizations[turn++ % 4];
      CAPTURE(static_cast<int>(version));
      CAPTURE(name_of(type));
      CAPTURE(static_cast<int>(quantization));
      SmallModel model(*device, version, type, quantization, 2);
      Result alone = run(model, *ops, [&](Ops&) -> Ops& { return separately; });
      Result together = run(model, *ops, [](Ops& o) -> Ops& { return o; });
      CHECK(std::ranges::all_of(alone.logits, [](float v) { return std::isfinite(v); }));
      CHECK(same_bits(alone.logits, together.logits));
      CHECK(alone.state == together.state);
    }
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
