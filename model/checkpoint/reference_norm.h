// Layer normalization with the reference's rounding.
#pragma once

#include <span>

namespace rwkv {

/// row = normalize(row) * weight + bias, as torch.nn.functional.layer_norm computes it on the CPU for rows of
/// bf16 or fp16, before it rounds the result to that type: the same fp32 numbers to the last bit (of bf16 in
/// widths that are multiples of 16).
void reference_layer_norm(std::span<float> row, std::span<const float> weight, std::span<const float> bias);

}  // namespace rwkv
