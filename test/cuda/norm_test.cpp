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
