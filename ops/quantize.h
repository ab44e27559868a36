// int8 weights: w is kept as q * scale, with q in [-127, 127] and one bf16 scale for scale_group weights.
#pragma once

#include <cstdint>

#include "core/half.h"

namespace rwkv {

/// Quantizes `count` <= scale_group weights that stand `stride` apart: the scale is max|w| / 127 rounded to
/// bf16 (as many exponents as fp32, so that tiny weights keep theirs), q = w / scale rounded to nearest: no
/// weight is off by more than half a scale. The scale is 0 where it would be below the smallest normal
/// number, and NaN where a weight is not finite.
BFloat16 quantize_group(const float* weights, int64_t count, int64_t stride, int8_t* q);

}  // namespace rwkv
