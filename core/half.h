// The 16-bit floating point types, with bit-exact conversions that need no hardware support.
// To 16 bits: round to nearest, ties to even; overflow gives infinity; NaN stays NaN (made quiet, upper
// payload bits kept). From 16 bits: exact, subnormals included.
#pragma once

#include <bit>
#include <cstdint>

namespace rwkv {

/// IEEE 754 binary16.
struct Half {
  uint16_t bits;
};

/// The upper half of an IEEE 754 binary32.
struct BFloat16 {
  uint16_t bits;
};

constexpr float to_float(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

constexpr BFloat16 to_bfloat16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

constexpr float to_float(Half value) {
  uint32_t sign = (value.bits & 0x8000u) << 16;
  uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  // Subnormal: magnitude * 2^-24, exact in fp32.
  float scaled = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

constexpr Half to_half(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  auto with_sign = [sign](uint32_t magnitude) { return Half{static_cast<uint16_t>(sign | magnitude)}; };
  if (bits > 0x7f800000u) return with_sign(0x7e00u | ((bits >> 13) & 0x3ffu));
  if (bits >= 0x477ff000u) return with_sign(0x7c00u);  // 65520 and above round to infinity
  if (bits >= 0x38800000u) {                           // normal: 2^-14 and above
    bits += 0xfffu + ((bits >> 13) & 1u);
    return with_sign((bits >> 13) - (112u << 10));
  }
  if (bits < 0x33000000u) return with_sign(0);  // below 2^-25: rounds to zero
  uint32_t shift = 126u - (bits >> 23);         // 14 to 24 bits are lost
  uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  uint32_t kept = mantissa >> shift;
  uint32_t lost = mantissa & ((1u << shift) - 1u);
  uint32_t halfway = 1u << (shift - 1u);
  if (lost > halfway || (lost == halfway && (kept & 1u) != 0)) kept++;
  return with_sign(kept);
}

}  // namespace rwkv
