// Half types as the toolkit's own headers compute them on the host, as bits.
#pragma once

#include <cstdint>

namespace rwkv::test::toolkit {

enum class Binary { add, subtract, multiply, divide, max, min };
enum class Unary { negate, absolute, is_nan };
enum class Rounding { nearest, zero, down, up };

uint16_t to_half(float value, Rounding rounding);
uint16_t to_bfloat16(float value, Rounding rounding);
uint16_t double_to_half(double value);
uint16_t double_to_bfloat16(double value);
float half_to_float(uint16_t a);
float bfloat16_to_float(uint16_t a);
uint16_t half_binary(Binary operation, uint16_t a, uint16_t b);
uint16_t bfloat16_binary(Binary operation, uint16_t a, uint16_t b);
uint16_t half_unary(Unary operation, uint16_t a);
uint16_t bfloat16_unary(Unary operation, uint16_t a);
/// Two halves from two floats, the first in the lower bits.
uint32_t to_half2(float x, float y);
uint32_t to_bfloat162(float x, float y);

}  // namespace rwkv::test::toolkit
