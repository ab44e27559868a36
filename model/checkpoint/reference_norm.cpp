#include "model/checkpoint/reference_norm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "ops/ops.h"

// The reference rounds the normalized embedding to the checkpoint's 16-bit type. A value beside a border
// between two such numbers falls on one side or the other by the last bit of a sum, and what is then off by
// one part in a thousand shows in the logits: it happened to one element in ten thousand while the sums ran
// in another order. So they run in PyTorch's: Welford's running mean in eight lanes (its AVX2 code, which
// machines with AVX-512 use too), two vectors at once, chunks of 16 steps merged pairwise like the digits of
// a binary counter, and fused multiplications where its compiler puts them.
namespace rwkv {
namespace {

constexpr size_t lanes = 8, pair = 2 * lanes, chunk_steps = 16, max_levels = 32;

using Lanes = std::array<float, lanes>;

/// Of `count` values: their mean, and the sum of squared distances from it.
struct Moments {
  float count = 0, mean = 0, squares = 0;
};
struct LaneMoments {
  float count = 0;  ///< in each lane
  Lanes mean{}, squares{};
};

// Exact but for the rounding of a double: as good as std::fma, which is a call on machines without it.
float multiply_add(float a, float b, float c) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c));
}

void merge(LaneMoments& into, const LaneMoments& part) {
  float count = into.count + part.count;
  float share = count == 0 ? 0 : part.count / count;
  for (size_t i = 0; i < lanes; i++) {
    float delta = part.mean[i] - into.mean[i];
    into.mean[i] = into.mean[i] + share * delta;
    into.squares[i] = multiply_add(delta * (share * into.count), delta, into.squares[i] + part.squares[i]);
  }
  into.count = count;
}

void merge(Moments& into, const Moments& part) {
  float count = into.count + part.count;
  float share = count == 0 ? 0 : part.count / count;
  float delta = part.mean - into.mean;
  into.mean = multiply_add(share, delta, into.mean);
  into.squares += multiply_add(delta * delta * share, into.count, part.squares);
  into.count = count;
}

/// Every second vector of a chunk of `steps` pairs of vectors.
LaneMoments moments_of_chunk(const float* values, size_t steps) {
  LaneMoments m;
  for (size_t step = 0; step < steps; step++) {
    float share = 1.0f / static_cast<float>(step + 1);
    for (size_t i = 0; i < lanes; i++) {
      float x = values[step * pair + i], delta = x - m.mean[i];
      m.mean[i] = multiply_add(delta, share, m.mean[i]);
      m.squares[i] = multiply_add(delta, x - m.mean[i], m.squares[i]);
    }
  }
  m.count = static_cast<float>(steps);
  return m;
}

LaneMoments moments_of_pairs(const float* values, size_t pairs) {
  std::array<LaneMoments, max_levels> levels{};
  size_t chunks = (pairs + chunk_steps - 1) / chunk_steps, depth = 1;
  while (size_t{1} << depth < chunks) depth++;
  for (size_t i = 0; i < chunks; i++) {
    const float* chunk = values + i * chunk_steps * pair;
    size_t steps = std::min(chunk_steps, pairs - i * chunk_steps);
    merge(levels[0], moments_of_chunk(chunk, steps));
    merge(levels[0], moments_of_chunk(chunk + lanes, steps));
    for (size_t level = 1; level < depth && ((i + 1) >> (level - 1) & 1) == 0; level++) {
      merge(levels[level], levels[level - 1]);
      levels[level - 1] = {};
    }
  }
  for (size_t level = 1; level < depth; level++) merge(levels[0], levels[level]);
  return levels[0];
}

Moments moments_of(std::span<const float> row) {
  size_t pairs = row.size() / pair;
  Moments total;
  for (float x : row.subspan(pairs * pair)) {
    float delta = x - total.mean;
    total.count += 1;
    total.mean += delta / total.count;
    total.squares = multiply_add(delta, x - total.mean, total.squares);
  }
  LaneMoments m = moments_of_pairs(row.data(), pairs);
  for (size_t i = 0; i < lanes; i++) merge(total, Moments{m.count, m.mean[i], m.squares[i]});
  return total;
}

}  // namespace

void reference_layer_norm(std::span<float> row, std::span<const float> weight, std::span<const float> bias) {
  Moments m = moments_of(row);
  float scale = 1.0f / std::sqrt(m.squares / static_cast<float>(row.size()) + layer_norm_epsilon);
  float shift = -m.mean * scale;
  for (size_t i = 0; i < row.size(); i++) {
    row[i] = multiply_add(multiply_add(row[i], scale, shift), weight[i], bias[i]);
  }
}

}  // namespace rwkv
