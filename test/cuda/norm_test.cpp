// Layer norm and token shift: cuda/kernels/norm.cu. test/ops has more shapes.
#include <doctest/doctest.h>

#include <algorithm>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/operator_cases.h"

namespace rwkv::test {
namespace {

Implementation cuda_device() {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(cuda::open(0));
  return {std::move(devices), {Layout::cuda_blocks}, Rounding::cuda};
}

/// Around the four numbers that a thread has at once, and the 1024 of a block; more than anybody has.
constexpr int64_t widths[] = {1, 2, 3, 4, 5, 127, 1020, 1023, 1025, 2049, 4096, 20001};

/// All tokens in chunks of so many.
std::vector<float> run_in_pieces(Bench bench, const Sequence& sequence, int64_t piece) {
  std::vector<float> state = sequence.state, all;
  for (int64_t begin = 0; begin < sequence.tokens; begin += piece) {
    std::vector<float> out = sequence.run(bench, {begin, std::min(begin + piece, sequence.tokens)}, state);
    all.insert(all.end(), out.begin(), out.end());
  }
  all.insert(all.end(), state.begin(), state.end());
  return all;
}

/// Everything that a token shift writes, with its operands at such places.
std::vector<float> run_token_shift(Bench bench, int64_t tokens, int64_t width, int64_t mixes, Place place) {
  Random random(static_cast<uint64_t>(width));
  Device& device = bench.device;
  const DeviceTensor x(device, {tokens, width}, random.normals(tokens * width), place);
  const DeviceTensor weight(device, {width}, random.normals(width), place);
  const DeviceTensor bias(device, {width}, random.normals(width), place);
  const DeviceTensor state(device, {width}, random.normals(width), place);
  const std::vector<float> nothing(static_cast<size_t>((tokens + 1) * width));
  const DeviceTensor normalized(device, {tokens + 1, width}, nothing, place);
  std::vector<DeviceTensor> amounts, mixed;
  std::vector<Mix> list;
  for (int64_t m = 0; m < mixes; m++) {
    amounts.emplace_back(device, std::initializer_list<int64_t>{width}, random.normals(width), place);
    mixed.emplace_back(device, std::initializer_list<int64_t>{tokens, width}, nothing, place);
    list.push_back({amounts.back(), mixed.back()});
  }
  bench.ops.token_shift({x, {weight, bias}, state, normalized, list});
  bench.ops.synchronize();
  std::vector<float> all = finish(state, {&x, &weight, &bias});
  auto add = [&all](const DeviceTensor& output) {
    const std::vector<float> values = finish(output, {});
    all.insert(all.end(), values.begin(), values.end());
  };
  add(normalized);
  for (const DeviceTensor& m : mixed) add(m);
  return all;
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("layer norm: rows of any width, anywhere, in place or not, have the formula's values") {
  int64_t seed = 0;
  on_device(4, [&] {
    const Implementation device = cuda_device();
    for (int64_t width : widths) {
      CAPTURE(width);
      CAPTURE(seed);
      const int64_t tokens = width > 5000 ? 2 : 1 + seed % 5;
      check_sequence(device, layer_norm_sequence(tokens, width, seed, seed % 2 == 0));
      seed++;
    }
  });
}

TEST_CASE("token shift: rows of any width, up to six mixes, chunks of any length") {
  int64_t seed = 0;
  on_device(4, [&] {
    const Implementation device = cuda_device();
    for (int64_t width : widths) {
      CAPTURE(width);
      CAPTURE(seed);
      const int64_t tokens = width > 5000 ? 2 : 1 + seed % 9;
      check_sequence(device, token_shift_sequence(tokens, width, width > 5000 ? 1 : seed % 7, seed));
      seed++;
    }
  });
}

TEST_CASE("token shift: rows that are aligned give the bits of rows that are not") {
  on_device(4, [] {
    const Implementation device = cuda_device();
    for (int64_t width : {4, 1024, 1028, 2300}) {
      for (int64_t tokens : {1, 4}) {
        for (int64_t mixes : {0, 1, 6}) {
          CAPTURE(width);
          CAPTURE(tokens);
          CAPTURE(mixes);
          const std::vector<float> aligned = run_token_shift(device[0], tokens, width, mixes, {0, 4, false});
          CHECK(same_bits(aligned, run_token_shift(device[0], tokens, width, mixes, {1, 0, false})));
          CHECK(same_bits(aligned, run_token_shift(device[0], tokens, width, mixes, {0, 1, false})));
        }
      }
    }
  });
}

TEST_CASE("token shift: blocks that have several tokens give what blocks with one give") {
  on_device(2, [] {
    const Implementation device = cuda_device();
    constexpr int64_t tokens = 1100;
    const Sequence sequence = token_shift_sequence(tokens, 6, 1, 1);
    CHECK(same_bits(run_in_pieces(device[0], sequence, tokens), run_in_pieces(device[0], sequence, 400)));
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
