// What 16-bit types compute, as bits: one text, compiled against the toolkit's headers (toolkit.cpp) and
// against the emulated device's (toolkit_test.cpp). Names mean another thing in each: nothing here is shared
// between the two.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "test/cuda/emulator/toolkit.h"

namespace rwkv::test::toolkit {

namespace {

// The pairs of the toolkit are not trivially copyable.
template <class T>
uint64_t word(const T& value) {
  uint64_t result = 0;
  static_assert(sizeof value <= sizeof result);
  memcpy(&result, static_cast<const void*>(&value), sizeof value);
  return result;
}

template <class T>
T from_word(uint64_t bits) {
  T value;
  static_assert(sizeof value <= sizeof bits);
  memcpy(static_cast<void*>(&value), &bits, sizeof value);
  return value;
}

struct HalfCalls {
  using One = __half;
  using Two = __half2;
  static uint64_t convert(Convert call, uint64_t bits) {
    const auto number = from_word<float>(bits);
    const auto one = from_word<One>(bits);
    const auto two = from_word<Two>(bits);
    switch (call) {
      case Convert::from_float:
        return word(__float2half(number));
      case Convert::from_float_rn:
        return word(__float2half_rn(number));
      case Convert::from_double:
        return word(__double2half(from_word<double>(bits)));
      case Convert::construct_from_float:
        return word(One(number));
      case Convert::construct_from_double:
        return word(One(from_word<double>(bits)));
      case Convert::construct_from_int:
        return word(One(from_word<int>(bits)));
      case Convert::from_bits:
        return word(__ushort_as_half(from_word<uint16_t>(bits)));
      case Convert::to_bits:
        return __half_as_ushort(one);
      case Convert::to_float:
        return word(__half2float(one));
      case Convert::cast_to_float:
        return word(static_cast<float>(one));
      case Convert::twice_from_float:
        return word(__float2half2_rn(number));
      case Convert::pair_from_floats:
        return word(__floats2half2_rn(from_word<float2>(bits).x, from_word<float2>(bits).y));
      case Convert::pair_from_float2:
        return word(__float22half2_rn(from_word<float2>(bits)));
      case Convert::pair_to_float2:
        return word(__half22float2(two));
      case Convert::twice:
        return word(__half2half2(one));
      case Convert::pair:
        return word(__halves2half2(__low2half(two), __high2half(two)));
      case Convert::low_to_float:
        return word(__low2float(two));
      case Convert::high_to_float:
        return word(__high2float(two));
    }
    return 0;
  }
};

struct BrainCalls {
  using One = __nv_bfloat16;
  using Two = __nv_bfloat162;
  static uint64_t convert(Convert call, uint64_t bits) {
    const auto number = from_word<float>(bits);
    const auto one = from_word<One>(bits);
    const auto two = from_word<Two>(bits);
    switch (call) {
      case Convert::from_float:
        return word(__float2bfloat16(number));
      case Convert::from_float_rn:
        return word(__float2bfloat16_rn(number));
      case Convert::from_double:
        return word(__double2bfloat16(from_word<double>(bits)));
      case Convert::construct_from_float:
        return word(One(number));
      case Convert::construct_from_double:
        return word(One(from_word<double>(bits)));
      case Convert::construct_from_int:
        return word(One(from_word<int>(bits)));
      case Convert::from_bits:
        return word(__ushort_as_bfloat16(from_word<uint16_t>(bits)));
      case Convert::to_bits:
        return __bfloat16_as_ushort(one);
      case Convert::to_float:
        return word(__bfloat162float(one));
      case Convert::cast_to_float:
        return word(static_cast<float>(one));
      case Convert::twice_from_float:
        return word(__float2bfloat162_rn(number));
      case Convert::pair_from_floats:
        return word(__floats2bfloat162_rn(from_word<float2>(bits).x, from_word<float2>(bits).y));
      case Convert::pair_from_float2:
        return word(__float22bfloat162_rn(from_word<float2>(bits)));
      case Convert::pair_to_float2:
        return word(__bfloat1622float2(two));
      case Convert::twice:
        return word(__bfloat162bfloat162(one));
      case Convert::pair:
        return word(__halves2bfloat162(__low2bfloat16(two), __high2bfloat16(two)));
      case Convert::low_to_float:
        return word(__low2float(two));
      case Convert::high_to_float:
        return word(__high2float(two));
    }
    return 0;
  }
};

// Of the lower 16 bits of each, or of both halves.
template <class Calls>
uint64_t calculate(Calculate call, uint64_t a, uint64_t b) {
  const auto x = from_word<typename Calls::One>(a), y = from_word<typename Calls::One>(b);
  const auto p = from_word<typename Calls::Two>(a), q = from_word<typename Calls::Two>(b);
  switch (call) {
    case Calculate::add:
      return word(__hadd(x, y));
    case Calculate::subtract:
      return word(__hsub(x, y));
    case Calculate::multiply:
      return word(__hmul(x, y));
    case Calculate::divide:
      return word(__hdiv(x, y));
    case Calculate::add_operator:
      return word(x + y);
    case Calculate::subtract_operator:
      return word(x - y);
    case Calculate::multiply_operator:
      return word(x * y);
    case Calculate::divide_operator:
      return word(x / y);
    case Calculate::add_pairs:
      return word(__hadd2(p, q));
    case Calculate::subtract_pairs:
      return word(__hsub2(p, q));
    case Calculate::multiply_pairs:
      return word(__hmul2(p, q));
    case Calculate::max:
      return word(__hmax(x, y));
    case Calculate::min:
      return word(__hmin(x, y));
    case Calculate::compare:
      return (x == y ? 1u : 0u) + (x != y ? 2u : 0u) + (x < y ? 4u : 0u) + (x <= y ? 8u : 0u) +
             (x > y ? 16u : 0u) + (x >= y ? 32u : 0u);
    case Calculate::negate:
      return word(__hneg(x));
    case Calculate::absolute:
      return word(__habs(x));
    case Calculate::is_nan:
      return __hisnan(x) ? 1 : 0;
  }
  return 0;
}

}  // namespace

}  // namespace rwkv::test::toolkit
