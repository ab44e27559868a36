// The emulated device's 16-bit types, numbers and sizes against the toolkit's, bit by bit; compiled where a
// toolkit is installed.
#include "test/cuda/emulator/toolkit.h"

#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <bit>

#include "cuda/emulator/random.h"
#include "test/cuda/emulator/toolkit_calls.h"
#include "test/cuda/emulator/toolkit_constants.h"

namespace rwkv::test::toolkit {

namespace {

template <class... T>
std::vector<long long> own_numbers(T... values) {
  return {static_cast<long long>(values)...};
}

int differences(Convert call, uint64_t bits) {
  return (HalfCalls::convert(call, bits) != convert_half(call, bits) ? 1 : 0) +
         (BrainCalls::convert(call, bits) != convert_bfloat16(call, bits) ? 1 : 0);
}

int differences(Calculate call, uint64_t a, uint64_t b) {
  return (calculate<HalfCalls>(call, a, b) != calculate_half(call, a, b) ? 1 : 0) +
         (calculate<BrainCalls>(call, a, b) != calculate_bfloat16(call, a, b) ? 1 : 0);
}

// Every 977th pattern of 32 bits, and both neighbours of each half's halfway points.
template <class Check>
void for_floats(Check check) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 977) check(bits);
  for (uint64_t half = 0; half < 0x10000; half++) {
    for (const uint64_t low : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) check(half << 16 | low);
  }
  for (uint64_t bits = 0; bits < 0x10000; bits++) {
    // half's subnormal and normal numbers and their middles
    const uint64_t middle = 0x33000000u + (bits << 12);
    for (const uint64_t sign : {0u, 0x80000000u}) {
      for (const uint64_t pattern : {middle - 1, middle, middle + 1}) check(pattern | sign);
    }
  }
}

// Few bits set, so that many lie at or next to a middle of 16-bit numbers.
uint64_t sparse_double(emulator::Random& random) {
  const uint64_t sparse = random.next() & random.next() & random.next();
  const uint64_t exponent = 1023 - 140 + random.below(280);
  return (exponent << 52) | (sparse & 0xfffffffffffff) | (sparse >> 63 << 63);
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("all 16-bit numbers convert as the toolkit converts them") {
  for (const Convert call :
       {Convert::from_bits, Convert::to_bits, Convert::to_float, Convert::cast_to_float, Convert::twice,
        Convert::pair, Convert::low_to_float, Convert::high_to_float, Convert::pair_to_float2}) {
    int different = 0;
    for (uint64_t bits = 0; bits < 0x10000; bits++) {
      different += differences(call, bits | (bits * 40503 & 0xffff) << 16);
    }
    INFO("call ", static_cast<int>(call));
    CHECK(different == 0);
  }
}

TEST_CASE("floats round to 16 bits as in the toolkit") {
  for (const Convert call : {Convert::from_float, Convert::from_float_rn, Convert::construct_from_float,
                             Convert::twice_from_float}) {
    int different = 0;
    for_floats([&](uint64_t bits) { different += differences(call, bits); });
    INFO("call ", static_cast<int>(call));
    CHECK(different == 0);
  }
}

TEST_CASE("doubles, integers and pairs of floats round to 16 bits once") {
  emulator::Random random(3);
  int different = 0;
  for (int i = 0; i < 1000000; i++) {
    const uint64_t bits = sparse_double(random), word = random.next();
    different += differences(Convert::from_double, bits);
    different += differences(Convert::construct_from_double, bits);
    different += differences(Convert::construct_from_int, (word & 0xffffffff) >> (word >> 59));
    different += differences(Convert::pair_from_floats, word);
    different += differences(Convert::pair_from_float2, word);
  }
  for (int64_t i = -70000; i <= 70000; i++) {
    different += differences(Convert::construct_from_int, static_cast<uint32_t>(i));
  }
  CHECK(different == 0);
}

TEST_CASE("16-bit arithmetic and comparisons give the toolkit's bits") {
  emulator::Random random(5);
  for (const Calculate call :
       {Calculate::add, Calculate::subtract, Calculate::multiply, Calculate::divide, Calculate::add_operator,
        Calculate::subtract_operator, Calculate::multiply_operator, Calculate::divide_operator,
        Calculate::add_pairs, Calculate::subtract_pairs, Calculate::multiply_pairs, Calculate::max,
        Calculate::min, Calculate::compare}) {
    int different = 0;
    for (int i = 0; i < 300000; i++) {
      const uint64_t bits = random.next(), a = bits & 0xffffffff, b = bits >> 32;
      different += differences(call, a, b);
      different += differences(call, a, i % 2 == 0 ? a : a ^ 0x80008000);
    }
    // Zeros, the smallest, the largest, infinities and NaNs of both types, with both signs.
    for (const uint64_t a :
         {0x0u, 0x1u, 0x3ffu, 0x400u, 0x7bffu, 0x7c00u, 0x7e00u, 0x7f7fu, 0x7f80u, 0x7fffu}) {
      for (const uint64_t b :
           {0x0u, 0x1u, 0x3ffu, 0x400u, 0x7bffu, 0x7c00u, 0x7e00u, 0x7f7fu, 0x7f80u, 0x7fffu}) {
        for (const uint64_t signs : {0x0u, 0x8000u, 0x80000000u, 0x80008000u}) {
          different += differences(call, a << 16 | a, (b << 16 | b) ^ signs);
          different += differences(call, (a << 16 | a) ^ 0x80008000, (b << 16 | b) ^ signs);
        }
      }
    }
    INFO("call ", static_cast<int>(call));
    CHECK(different == 0);
  }
}

TEST_CASE("sign and NaN of all 16-bit numbers are the toolkit's") {
  int different = 0;
  for (uint64_t bits = 0; bits < 0x10000; bits++) {
    for (const Calculate call : {Calculate::negate, Calculate::absolute, Calculate::is_nan})
      different += differences(call, bits, 0);
  }
  CHECK(different == 0);
}

TEST_CASE("numbers of errors, kinds, flags and attributes, and sizes of types are the toolkit's") {
  const std::vector<long long> own = own_numbers(TOOLKIT_CONSTANTS), toolkits = constants();
  REQUIRE(own.size() == toolkits.size());
  for (size_t i = 0; i < own.size(); i++) {
    INFO("number ", i, " of the list");
    CHECK(own[i] == toolkits[i]);
  }
}

TEST_SUITE_END();

}  // namespace rwkv::test::toolkit
