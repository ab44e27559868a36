// The emulator's half types against the toolkit's, bit by bit; compiled where a toolkit is installed.
#include "test/cuda/emulator/toolkit.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <doctest/doctest.h>

#include <bit>
#include <vector>

#include "cuda/emulator/random.h"

namespace rwkv::test::toolkit {

namespace {

template <class F>
emulator::Float16<F> from_bits(uint64_t bits) {
  return emulator::Float16<F>::from_bits(static_cast<uint16_t>(bits));
}

template <class F>
uint16_t binary(Binary operation, emulator::Float16<F> a, emulator::Float16<F> b) {
  switch (operation) {
    case Binary::add:
      return __hadd(a, b).bits;
    case Binary::subtract:
      return __hsub(a, b).bits;
    case Binary::multiply:
      return __hmul(a, b).bits;
    case Binary::divide:
      return __hdiv(a, b).bits;
    case Binary::max:
      return __hmax(a, b).bits;
    case Binary::min:
      return __hmin(a, b).bits;
  }
  return 0;
}

template <class F>
uint16_t unary(Unary operation, emulator::Float16<F> a) {
  switch (operation) {
    case Unary::negate:
      return __hneg(a).bits;
    case Unary::absolute:
      return __habs(a).bits;
    case Unary::is_nan:
      return __hisnan(a) ? 1 : 0;
  }
  return 0;
}

constexpr Binary binaries[] = {Binary::add,    Binary::subtract, Binary::multiply,
                               Binary::divide, Binary::max,      Binary::min};
constexpr Unary unaries[] = {Unary::negate, Unary::absolute, Unary::is_nan};
constexpr Rounding roundings[] = {Rounding::nearest, Rounding::zero, Rounding::down, Rounding::up};

// Every 977th pattern of 32 bits, and both neighbours of each half's halfway points.
template <class Check>
void for_floats(Check check) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 977)
    check(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (uint32_t half = 0; half < 0x10000; half++) {
    for (const uint32_t low : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      check(std::bit_cast<float>(half << 16 | low));
  }
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    const uint32_t middle =
        0x33000000u + (bits << 12);  // half's subnormal and normal numbers and their middles
    for (const uint32_t sign : {0u, 0x80000000u}) {
      for (const uint32_t pattern : {middle - 1, middle, middle + 1})
        check(std::bit_cast<float>(pattern | sign));
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("16-bit numbers widen as the toolkit widens them, all of them") {
  int different = 0;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    const auto half = static_cast<uint16_t>(bits);
    different += std::bit_cast<uint32_t>(__half2float(__ushort_as_half(half))) !=
                 std::bit_cast<uint32_t>(half_to_float(half));
    different += std::bit_cast<uint32_t>(__bfloat162float(__ushort_as_bfloat16(half))) !=
                 std::bit_cast<uint32_t>(bfloat16_to_float(half));
  }
  CHECK(different == 0);
}

TEST_CASE("floats round to 16 bits as in the toolkit, in every direction") {
  for (const Rounding rounding : roundings) {
    int different = 0;
    const auto own = static_cast<emulator::Rounding>(rounding);
    for_floats([&](float value) {
      different +=
          emulator::round_to<emulator::Binary16>(static_cast<double>(value), own) != to_half(value, rounding);
      different += emulator::round_to<emulator::Brain16>(static_cast<double>(value), own) !=
                   to_bfloat16(value, rounding);
    });
    CHECK(different == 0);
  }
}

TEST_CASE("doubles round to 16 bits once") {
  emulator::Random random(3);
  int different = 0;
  for (int i = 0; i < 1000000; i++) {
    // Few bits set, so that many lie at or next to a middle.
    const uint64_t sparse = random.next() & random.next() & random.next();
    const uint64_t exponent = 1023 - 140 + random.below(280);
    const double value =
        std::bit_cast<double>((exponent << 52) | (sparse & 0xfffffffffffff) | (sparse >> 63 << 63));
    different += __double2half(value).bits != double_to_half(value);
    different += __double2bfloat16(value).bits != double_to_bfloat16(value);
  }
  CHECK(different == 0);
}

TEST_CASE("16-bit arithmetic gives the toolkit's bits") {
  emulator::Random random(5);
  for (const Binary operation : binaries) {
    int different_half = 0, different_bfloat16 = 0;
    for (int i = 0; i < 500000; i++) {
      const uint64_t bits = random.next();
      const auto a = static_cast<uint16_t>(bits), b = static_cast<uint16_t>(bits >> 16);
      different_half += binary(operation, from_bits<emulator::Binary16>(a),
                               from_bits<emulator::Binary16>(b)) != half_binary(operation, a, b);
      different_bfloat16 += binary(operation, from_bits<emulator::Brain16>(a),
                                   from_bits<emulator::Brain16>(b)) != bfloat16_binary(operation, a, b);
    }
    INFO("operation ", static_cast<int>(operation));
    CHECK(different_half == 0);
    CHECK(different_bfloat16 == 0);
  }
}

TEST_CASE("sign and NaN of 16-bit numbers are the toolkit's, and pairs keep their order") {
  int different = 0;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    const auto a = static_cast<uint16_t>(bits);
    for (const Unary operation : unaries) {
      different += unary(operation, from_bits<emulator::Binary16>(a)) != half_unary(operation, a);
      different += unary(operation, from_bits<emulator::Brain16>(a)) != bfloat16_unary(operation, a);
    }
  }
  CHECK(different == 0);
  CHECK(std::bit_cast<uint32_t>(__floats2half2_rn(1.5f, -2.25f)) == to_half2(1.5f, -2.25f));
  CHECK(std::bit_cast<uint32_t>(__floats2bfloat162_rn(1.5f, -2.25f)) == to_bfloat162(1.5f, -2.25f));
}

TEST_SUITE_END();

}  // namespace rwkv::test::toolkit
