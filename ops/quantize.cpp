#include "ops/quantize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace rwkv {

BFloat16 quantize_group(const float* weights, int64_t count, int64_t stride, int8_t* q) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; i++) {
    float magnitude = std::abs(weights[i * stride]);
    finite = finite && magnitude <= FLT_MAX;
    largest = std::max(largest, magnitude);
  }
  BFloat16 scale = to_bfloat16(largest / 127.0f);
  if (!finite || to_float(scale) < FLT_MIN) {
    std::fill(q, q + count, int8_t{0});
    return to_bfloat16(finite ? 0.0f : NAN);
  }
  float inverse = 1.0f / to_float(scale);
  for (int64_t i = 0; i < count; i++) {
    q[i] = static_cast<int8_t>(std::clamp(std::nearbyint(weights[i * stride] * inverse), -127.0f, 127.0f));
  }
  return scale;
}

}  // namespace rwkv
