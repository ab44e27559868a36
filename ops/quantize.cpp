#include "ops/quantize.h"

#include <algorithm>
#include <cmath>

namespace rwkv {

BFloat16 quantize_group(const float* weights, int64_t count, int64_t stride, int8_t* q) {
  float largest = 0;
  for (int64_t i = 0; i < count; i++) largest = std::max(largest, std::abs(weights[i * stride]));
  BFloat16 scale = to_bfloat16(largest / 127.0f);
  float inverse = 1.0f / to_float(scale);
  if (!std::isfinite(inverse)) {  // all zero, or so small that the inverse overflows
    std::fill(q, q + count, int8_t{0});
    return {0};
  }
  for (int64_t i = 0; i < count; i++) {
    float rounded = std::nearbyint(weights[i * stride] * inverse);
    q[i] = static_cast<int8_t>(std::clamp(std::isnan(rounded) ? 0.0f : rounded, -127.0f, 127.0f));
  }
  return scale;
}

}  // namespace rwkv
