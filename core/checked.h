// Arithmetic on sizes that come from untrusted files: a result that does not fit is an Error, never a wrap.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "core/error.h"

namespace rwkv {

inline uint64_t checked_add(uint64_t a, uint64_t b, const char* what) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) throw Error(std::string(what) + ": the sum of sizes overflows");
  return sum;
}

inline uint64_t checked_mul(uint64_t a, uint64_t b, const char* what) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw Error(std::string(what) + ": the product of sizes overflows");
  }
  return product;
}

/// The product of all sizes, 1 for none. Negative sizes are errors.
inline uint64_t checked_product(std::span<const int64_t> sizes, const char* what) {
  uint64_t product = 1;
  for (int64_t size : sizes) {
    if (size < 0) throw Error(std::string(what) + ": negative size");
    product = checked_mul(product, static_cast<uint64_t>(size), what);
  }
  if (product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw Error(std::string(what) + ": the product of sizes overflows");
  }
  return product;
}

/// True when [offset, offset + length) lies inside [0, size); never overflows.
constexpr bool range_fits(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace rwkv
