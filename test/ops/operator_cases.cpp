#include "test/ops/operator_cases.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

namespace rwkv::test {

Implementation::Implementation(std::vector<std::unique_ptr<Device>> devices, std::vector<Layout> layouts)
    : devices_(std::move(devices)), layouts_(std::move(layouts)) {
  for (const auto& device : devices_) ops_.push_back(device->make_ops());
}

std::vector<float> finish(const DeviceTensor& out, std::initializer_list<const DeviceTensor*> inputs) {
  CHECK_FALSE(out.changed_around());
  for (const DeviceTensor* input : inputs) CHECK_FALSE(input->changed());
  return out.values();
}

std::vector<float> rows_of(Floats matrix, int64_t width, Range tokens) {
  return {matrix.begin() + tokens.begin * width, matrix.begin() + tokens.end * width};
}

namespace {

/// Outputs of all tokens in chunks that end where `ends` says, then the final state.
std::vector<float> run_in_chunks(Bench bench, const Sequence& sequence, const std::vector<int64_t>& ends) {
  std::vector<float> state = sequence.state, all;
  int64_t begin = 0;
  for (int64_t end : ends) {
    std::vector<float> out = sequence.run(bench, {begin, end}, state);
    all.insert(all.end(), out.begin(), out.end());
    begin = end;
  }
  all.insert(all.end(), state.begin(), state.end());
  return all;
}

}  // namespace

void check_sequence(const Implementation& implementation, const Sequence& sequence) {
  std::vector<float> state = sequence.state, one_by_one;
  for (int64_t t = 0; t < sequence.tokens; t++) {
    CAPTURE(t);
    Step expected = sequence.expected(t, state);
    std::vector<float> out = sequence.run(implementation[0], {t, t + 1}, state);
    REQUIRE(mismatch(out, expected.out) == "");
    REQUIRE(mismatch(state, expected.state) == "");
    one_by_one.insert(one_by_one.end(), out.begin(), out.end());
  }
  one_by_one.insert(one_by_one.end(), state.begin(), state.end());

  int64_t tokens = sequence.tokens;
  std::vector<std::vector<int64_t>> divisions = {{tokens}};
  if (tokens > 1) divisions.push_back({1, tokens});
  if (tokens > 2) divisions.push_back({tokens / 3, tokens / 3 * 2 + 1, tokens});
  for (size_t i = 0; i < implementation.size(); i++) {
    CAPTURE(implementation[i].device.description());
    // The first device does all divisions, the others one in turn.
    for (size_t d = 0; d < divisions.size(); d++) {
      if (i > 0 && d != (i + static_cast<size_t>(tokens)) % divisions.size()) continue;
      CAPTURE(d);
      REQUIRE(same_bits(run_in_chunks(implementation[i], sequence, divisions[d]), one_by_one));
    }
  }
}

}  // namespace rwkv::test
