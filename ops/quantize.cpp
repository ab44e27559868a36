#include "ops/quantize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace rwkv {
namespace {

constexpr float largest_integer = 127;

// The largest magnitude; NaN when a weight is not finite.
float largest_of(const float* weights, int64_t count) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; i++) {
    float magnitude = std::abs(weights[i]);
    finite = finite && magnitude <= FLT_MAX;
    largest = std::max(largest, magnitude);
  }
  return finite ? largest : NAN;
}

// The nearest level of [i / 2, (i + 1) / 2), at 254 + i: where one level's numbers end and the next one's
// begin is a multiple of one half.
constexpr std::array<uint8_t, 508> make_nearest_levels() {
  std::array<uint8_t, 508> nearest{};
  for (int i = -254; i < 254; i++) {
    const int middle = 2 * i + 1;  // times 4
    uint8_t best = 0;
    for (uint8_t code = 1; code < 16; code++) {
      const int distance = middle - 4 * int4_levels[code], least = middle - 4 * int4_levels[best];
      if (distance * distance < least * least) best = code;
    }
    nearest[static_cast<size_t>(i + 254)] = best;
  }
  return nearest;
}
constexpr std::array<uint8_t, 508> nearest_levels = make_nearest_levels();

int nearest_integer(float x) {
  // Adding 1.5 * 2^23 leaves the rounded number in the lowest bits, and costs less than a call.
  constexpr float magic = 12582912.0f;
  return static_cast<int>((x + magic) - magic);
}

uint8_t nearest_level(float x) {
  return nearest_levels[static_cast<size_t>(nearest_integer(std::clamp(2 * x - 0.5f, -254.0f, 253.0f)) +
                                            254)];
}

// The scale with the least squared error for weights whose largest one is `largest`. With the integers q of a
// trial, |w - d q|^2 is least at d = wq / qq, where it is ww - wq^2 / qq.
float best_scale(const float* weights, int64_t count, float largest) {
  float best = 0, most = -1;
  for (float sign : {1.0f, -1.0f}) {
    for (float part : {0.8f, 0.9f, 1.0f, 1.1f}) {
      // Of weights over the largest one, so that no square overflows.
      float inverse = sign * largest_integer / (part * largest), wq = 0;
      int qq = 0;
      for (int64_t i = 0; i < count; i++) {
        int q = int4_levels[nearest_level(weights[i] * inverse)];
        wq += weights[i] / largest * static_cast<float>(q);
        qq += q * q;
      }
      float gain = wq * wq / static_cast<float>(qq);
      if (gain > most) {
        most = gain;
        best = wq / static_cast<float>(qq) * largest;
      }
    }
  }
  constexpr float limit = FLT_MAX / largest_integer;  // with which no weight overflows
  return std::clamp(best, -limit, limit);
}

}  // namespace

BFloat16 quantize_group(DType dtype, const float* weights, int64_t count, uint8_t* codes) {
  const float largest = largest_of(weights, count);
  const bool tiny = to_float(to_bfloat16(largest / largest_integer)) < FLT_MIN;
  BFloat16 scale = to_bfloat16(largest / largest_integer);
  if (dtype == DType::i4 && largest > 0 && !tiny) scale = to_bfloat16(best_scale(weights, count, largest));
  if (!(std::abs(to_float(scale)) >= FLT_MIN)) {
    std::fill(codes, codes + count, uint8_t{0});
    return to_bfloat16(largest >= 0 ? 0.0f : NAN);
  }
  const float inverse = 1.0f / to_float(scale);
  for (int64_t i = 0; i < count; i++) {
    codes[i] = dtype == DType::i4 ? nearest_level(weights[i] * inverse)
                                  : static_cast<uint8_t>(nearest_integer(
                                        std::clamp(weights[i] * inverse, -largest_integer, largest_integer)));
  }
  return scale;
}

}  // namespace rwkv
