// Passes over the logits of a whole vocabulary, for the sampler. A seed has to give the same text on every
// machine: nothing is fused here, and lane i of the sums is the same in every set.
#include <bit>
#include <limits>

#include "cpu/kernels/kernels.h"
// Last: it selects the instruction set.
#include "cpu/kernels/isa.h"

namespace rwkv::cpu::ISA {
namespace {

/// exp(x) for x <= 0, nearly always the fp32 number next to it, and 0 below -86, where the result would soon
/// not be a normal number. Own code because the C library's differs from machine to machine.
inline Vec exp_of_negative(Vec x) {
  const float lowest = -86.0f;
  const Vec to_integer = set1(0x1.8p23f);  // adding it rounds to an integer
  const Vec clamped = max_of(set1(lowest), x);
  const Vec n = sub(add(mul(clamped, set1(1.44269504f)), to_integer), to_integer);
  const Vec high = sub(clamped, mul(n, set1(0.693359375f)));  // few bits: the product is exact
  const Vec n_low = mul(n, set1(-2.12194440e-4f));
  const Vec r = sub(high, n_low);
  const Vec r_error = sub(sub(high, r), n_low);
  // The exponential series to r^7; |r| <= ln(2) / 2, so the next term is below 6e-9.
  Vec series = set1(1.0f / 5040);
  for (const float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f}) {
    series = add(mul(series, r), set1(term));
  }
  const Vec leading = add(set1(1.0f), r);
  const Vec leading_error = sub(r, sub(leading, set1(1.0f)));
  const Vec fraction = add(leading, add(leading_error, add(mul(mul(r, r), series), r_error)));
  constexpr float above = 0x1.580002p+6f;  // the number after 86
  return select_small(x, above, mul(fraction, power_of_two(n)), set1(0.0f));
}

}  // namespace

float maximum(std::span<const float> values) {
  Vec most = set1(-std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < values.size(); i += 16) most = max_of(most, load(&values[i]));
  float lanes[16];
  store(lanes, most);
  float result = lanes[0];
  for (const float lane : lanes) result = lane > result ? lane : result;
  return result;
}

void softmax(std::span<const float> logits, float max, float* result) {
  Vec total = set1(0.0f);
  for (size_t i = 0; i < logits.size(); i += 16) {
    const Vec e = exp_of_negative(sub(load(&logits[i]), set1(max)));
    store(result + i, e);
    total = add(total, e);
  }
  const Vec scale = set1(1.0f / sum(total));
  for (size_t i = 0; i < logits.size(); i += 16) store(result + i, mul(load(result + i), scale));
}

bool all_in_range(std::span<const float> values, float lower, float upper) {
  uint32_t inside = 0xffff;
  for (size_t i = 0; i < values.size(); i += 16) {
    const Vec x = load(&values[i]);
    inside &= at_least(x, lower) & ~at_least(x, upper);
  }
  return inside == 0xffff;
}

int64_t find_in_range(std::span<const float> values, float lower, float upper, int32_t* indices) {
  int64_t count = 0;
  for (size_t i = 0; i < values.size(); i += 16) {
    const Vec x = load(&values[i]);
    for (uint32_t found = at_least(x, lower) & ~at_least(x, upper); found != 0; found &= found - 1) {
      indices[count++] = static_cast<int32_t>(i) + std::countr_zero(found);
    }
  }
  return count;
}

}  // namespace rwkv::cpu::ISA
