#include "test/cuda/emulator/toolkit.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

namespace rwkv::test::toolkit {

namespace {

uint16_t bits(__half value) { return __half_as_ushort(value); }
uint16_t bits(__nv_bfloat16 value) { return __bfloat16_as_ushort(value); }

template <class T>
uint16_t binary(Binary operation, T a, T b) {
  switch (operation) {
    case Binary::add:
      return bits(__hadd(a, b));
    case Binary::subtract:
      return bits(__hsub(a, b));
    case Binary::multiply:
      return bits(__hmul(a, b));
    case Binary::divide:
      return bits(__hdiv(a, b));
    case Binary::max:
      return bits(__hmax(a, b));
    case Binary::min:
      return bits(__hmin(a, b));
  }
  return 0;
}

template <class T>
uint16_t unary(Unary operation, T a) {
  switch (operation) {
    case Unary::negate:
      return bits(__hneg(a));
    case Unary::absolute:
      return bits(__habs(a));
    case Unary::is_nan:
      return __hisnan(a) ? 1 : 0;
  }
  return 0;
}

// The toolkit's pairs are not trivially copyable.
template <class T>
uint32_t word(const T& pair) {
  uint32_t result = 0;
  static_assert(sizeof pair == sizeof result);
  memcpy(&result, static_cast<const void*>(&pair), sizeof result);
  return result;
}

}  // namespace

uint16_t to_half(float value, Rounding rounding) {
  switch (rounding) {
    case Rounding::nearest:
      return bits(__float2half(value));
    case Rounding::zero:
      return bits(__float2half_rz(value));
    case Rounding::down:
      return bits(__float2half_rd(value));
    case Rounding::up:
      return bits(__float2half_ru(value));
  }
  return 0;
}

uint16_t to_bfloat16(float value, Rounding rounding) {
  switch (rounding) {
    case Rounding::nearest:
      return bits(__float2bfloat16(value));
    case Rounding::zero:
      return bits(__float2bfloat16_rz(value));
    case Rounding::down:
      return bits(__float2bfloat16_rd(value));
    case Rounding::up:
      return bits(__float2bfloat16_ru(value));
  }
  return 0;
}

uint16_t double_to_half(double value) { return bits(__double2half(value)); }
uint16_t double_to_bfloat16(double value) { return bits(__double2bfloat16(value)); }
float half_to_float(uint16_t a) { return __half2float(__ushort_as_half(a)); }
float bfloat16_to_float(uint16_t a) { return __bfloat162float(__ushort_as_bfloat16(a)); }

uint16_t half_binary(Binary operation, uint16_t a, uint16_t b) {
  return binary(operation, __ushort_as_half(a), __ushort_as_half(b));
}
uint16_t bfloat16_binary(Binary operation, uint16_t a, uint16_t b) {
  return binary(operation, __ushort_as_bfloat16(a), __ushort_as_bfloat16(b));
}
uint16_t half_unary(Unary operation, uint16_t a) { return unary(operation, __ushort_as_half(a)); }
uint16_t bfloat16_unary(Unary operation, uint16_t a) { return unary(operation, __ushort_as_bfloat16(a)); }
uint32_t to_half2(float x, float y) { return word(__floats2half2_rn(x, y)); }
uint32_t to_bfloat162(float x, float y) { return word(__floats2bfloat162_rn(x, y)); }

}  // namespace rwkv::test::toolkit
