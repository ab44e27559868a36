// Element types of tensors.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace rwkv {

enum class DType : uint8_t { f32, f16, bf16, i8, u8, i32, i4 };

constexpr int64_t bits_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 32;
    case DType::f16:
    case DType::bf16:
      return 16;
    case DType::i8:
    case DType::u8:
      return 8;
    case DType::i4:
      return 4;
  }
  return 0;
}

/// Bytes of so many elements that follow each other.
constexpr int64_t bytes_of(DType dtype, int64_t elements) { return (elements * bits_of(dtype) + 7) / 8; }

/// Bytes of one element, which may be no int4: two of them share a byte.
constexpr size_t size_of(DType dtype) {
  assert(bits_of(dtype) % 8 == 0);
  return static_cast<size_t>(bits_of(dtype) / 8);
}

/// Integers that groups of weights share a scale for (ops/quantize.h).
constexpr bool is_quantized(DType dtype) { return dtype == DType::i8 || dtype == DType::i4; }

/// As in a strategy and in messages.
constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "fp32";
    case DType::f16:
      return "fp16";
    case DType::bf16:
      return "bf16";
    case DType::i8:
      return "int8";
    case DType::u8:
      return "uint8";
    case DType::i32:
      return "int32";
    case DType::i4:
      return "int4";
  }
  return "?";
}

}  // namespace rwkv
