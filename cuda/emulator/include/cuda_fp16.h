// The part of the toolkit's header of this name that this project uses.
#pragma once

#include <cstdint>

#include "cuda/emulator/float16.h"
#include "cuda/emulator/include/vector_types.h"

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
using __half = emulator::Float16<emulator::Binary16>;
using __half2 = emulator::Float16x2<emulator::Binary16>;
using half = __half;
using half2 = __half2;

inline __half __float2half(float a) { return __half(a); }
inline __half __float2half_rn(float a) { return __half(a); }
inline __half __double2half(double a) { return __half(a); }
inline float __half2float(__half a) { return static_cast<float>(a); }
inline __half __ushort_as_half(unsigned short a) { return __half::from_bits(a); }
inline unsigned short __half_as_ushort(__half a) { return a.bits; }

inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
inline float2 __half22float2(__half2 a) { return {static_cast<float>(a.x), static_cast<float>(a.y)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __half2half2(__half a) { return {a, a}; }
inline __half2 __float2half2_rn(float a) { return {__half(a), __half(a)}; }
inline __half __low2half(__half2 a) { return a.x; }
inline __half __high2half(__half2 a) { return a.y; }
inline float __low2float(__half2 a) { return static_cast<float>(a.x); }
inline float __high2float(__half2 a) { return static_cast<float>(a.y); }
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
