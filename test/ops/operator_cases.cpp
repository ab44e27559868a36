#include "test/ops/operator_cases.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

namespace rwkv::test {

Implementation::Implementation(std::vector<std::unique_ptr<Device>> devices, std::vector<Layout> layouts,
                               Rounding rounding)
    : devices_(std::move(devices)), layouts_(std::move(layouts)), rounding_(rounding) {
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

// Outputs of all tokens, token after token, and the final state.
struct Outputs {
  std::vector<float> tokens, state;
};

/// In chunks that end where `ends` says.
Outputs run_in_chunks(Bench bench, const Sequence& sequence, const std::vector<int64_t>& ends) {
  Outputs all{{}, sequence.state};
  int64_t begin = 0;
  for (int64_t end : ends) {
    std::vector<float> out = sequence.run(bench, {begin, end}, all.state);
    all.tokens.insert(all.tokens.end(), out.begin(), out.end());
    begin = end;
  }
  return all;
}

/// Compares the first tokens, each alone in its chunk, with the formula.
Outputs run_alone(Bench bench, const Sequence& sequence, int64_t tokens) {
  Outputs all{{}, sequence.state};
  for (int64_t t = 0; t < tokens; t++) {
    CAPTURE(t);
    Step expected = sequence.expected(t, all.state);
    std::vector<float> out = sequence.run(bench, {t, t + 1}, all.state);
    REQUIRE(mismatch(out, expected.out) == "");
    REQUIRE(mismatch(all.state, expected.state) == "");
    all.tokens.insert(all.tokens.end(), out.begin(), out.end());
  }
  return all;
}

/// Compares each token, with all others in its chunk, with the formula.
Outputs run_among(Bench bench, const Sequence& sequence) {
  Outputs all = run_in_chunks(bench, sequence, {sequence.tokens});
  auto width = static_cast<int64_t>(all.tokens.size()) / sequence.tokens;
  for (int64_t t = 0; t < sequence.tokens; t++) {
    CAPTURE(t);
    REQUIRE(mismatch(rows_of(all.tokens, width, {t, t + 1}), sequence.expected_among(t)) == "");
  }
  return all;
}

/// What chunks that end where `ends` says must give.
std::vector<float> mixed(const Outputs& alone, const Outputs& among, const std::vector<int64_t>& ends) {
  auto width = static_cast<int64_t>(among.tokens.size()) / ends.back();
  std::vector<float> all;
  int64_t begin = 0;
  for (int64_t end : ends) {
    const Outputs& from = end - begin == 1 ? alone : among;
    REQUIRE(end * width <= static_cast<int64_t>(from.tokens.size()));
    std::vector<float> rows = rows_of(from.tokens, width, {begin, end});
    all.insert(all.end(), rows.begin(), rows.end());
    begin = end;
  }
  return all;
}

}  // namespace

void check_sequence(const Implementation& implementation, const Sequence& sequence) {
  // What a token is alone says little about it among others, and the divisions below leave few alone.
  int64_t tokens = sequence.tokens, some = sequence.expected_among ? std::min<int64_t>(tokens, 5) : tokens;
  Outputs alone = run_alone(implementation[0], sequence, some), among = alone;
  if (sequence.expected_among && tokens > 1) among = run_among(implementation[0], sequence);

  std::vector<std::vector<int64_t>> divisions = {{tokens}};
  if (tokens > 1) divisions.push_back({1, tokens});
  if (tokens > 2) divisions.push_back({tokens / 3, tokens / 3 * 2 + 1, tokens});
  for (size_t i = 0; i < implementation.size(); i++) {
    CAPTURE(implementation[i].device.description());
    // The first device does all divisions, the others one in turn.
    for (size_t d = 0; d < divisions.size(); d++) {
      if (i > 0 && d != (i + static_cast<size_t>(tokens)) % divisions.size()) continue;
      CAPTURE(d);
      Outputs divided = run_in_chunks(implementation[i], sequence, divisions[d]);
      REQUIRE(same_bits(divided.tokens, mixed(alone, among, divisions[d])));
      REQUIRE(same_bits(divided.state, alone.state));
    }
  }
}

}  // namespace rwkv::test
