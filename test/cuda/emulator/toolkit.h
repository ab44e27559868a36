// What the toolkit's own headers compute on the host, as bits.
#pragma once

#include <cstdint>
#include <vector>

namespace rwkv::test::toolkit {

enum class Convert {
  from_float,
  from_float_rn,
  from_double,
  construct_from_float,
  construct_from_double,
  construct_from_int,
  from_bits,
  to_bits,
  to_float,
  cast_to_float,
  twice_from_float,
  pair_from_floats,
  pair_from_float2,
  pair_to_float2,
  twice,
  pair,
  low_to_float,
  high_to_float,
};
enum class Calculate {
  add,
  subtract,
  multiply,
  divide,
  add_operator,
  subtract_operator,
  multiply_operator,
  divide_operator,
  add_pairs,
  subtract_pairs,
  multiply_pairs,
  max,
  min,
  compare,
  negate,
  absolute,
  is_nan,
};

/// Bits of the argument and of the result fill the words from below.
uint64_t convert_half(Convert call, uint64_t bits);
uint64_t convert_bfloat16(Convert call, uint64_t bits);
uint64_t calculate_half(Calculate call, uint64_t a, uint64_t b);
uint64_t calculate_bfloat16(Calculate call, uint64_t a, uint64_t b);

/// The toolkit's numbers for what toolkit_constants.h lists, in its order.
std::vector<long long> constants();

}  // namespace rwkv::test::toolkit
