// int8 and int4 weights: a weight is kept as an integer times a scale, which scale_group weights share.
//
//   int8   the integer itself, from -127 to 127
//   int4   the place, from 0 to 15, of the integer in int4_levels
//
// Scales are bf16: as many exponents as fp32, so that tiny weights keep theirs.
#pragma once

#include <array>
#include <cstdint>

#include "core/dtype.h"
#include "core/half.h"

namespace rwkv {

/// Not evenly spaced: those for which groups of 32 normally distributed weights, each with the best scale,
/// come out nearest (Lloyd's algorithm). Of the weights' squares 0.0054 is lost; with even levels and the
/// largest weight on the last one, as llama.cpp's Q4_0 has them, 0.0074.
constexpr std::array<int8_t, 16> int4_levels = {-127, -100, -80, -64, -48, -34, -21, -9,
                                                3,    15,   27,  40,  54,  70,  91,  122};

/// Quantizes `count` <= scale_group weights; gives their scale and writes `codes`.
/// int8: the scale is max|w| / 127, and integers are rounded to nearest: no weight is off by more than half a
/// scale. int4: of eight scales, for the largest weight at 0.8 to 1.1 times the first level with either sign,
/// the one with the least squared error after it has been fitted to its integers. The scale is 0 where it
/// would be below the smallest normal number, and NaN where a weight is not finite.
BFloat16 quantize_group(DType dtype, const float* weights, int64_t count, uint8_t* codes);

/// The integer that a code stands for.
constexpr int8_t integer_of(DType dtype, uint8_t code) {
  return dtype == DType::i4 ? int4_levels[code & 15] : static_cast<int8_t>(code);
}

}  // namespace rwkv
