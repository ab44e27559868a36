// The inputs of tokens that are not zero: prepared once, read by products with input_rows weights.
//
// A token's inputs are cut into parts. Each part is a header with the number of those that are not zero,
// their places in the part, ascending, with room for all of them, and their values, with as much room.
#pragma once

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "cpu/kernels/operand.h"

namespace rwkv::cpu::ISA {

constexpr int64_t part_inputs = 256;
constexpr int64_t part_header_bytes = 16;

namespace {

struct NonzeroInputs {
  int64_t count;
  const uint16_t* places;
  const std::byte* values;  ///< fp32 or bf16
};

inline int64_t value_bytes(Operand operand) { return operand == Operand::nonzero_bf16 ? 2 : 4; }

inline int64_t part_bytes(int64_t room, Operand operand) {
  return part_header_bytes + room * (2 + value_bytes(operand));
}

static_assert(part_header_bytes + 64 * (2 + 4) <= 64 * operand_bytes,
              "the smallest part fits its inputs' room");

/// Of a token that has so many inputs.
inline int64_t nonzero_bytes(int64_t inputs, Operand operand) {
  const int64_t padded = round_up(inputs, 64), last = padded % part_inputs;
  return padded / part_inputs * part_bytes(part_inputs, operand) + (last > 0 ? part_bytes(last, operand) : 0);
}

/// Where the part is, of a token's, that begins with input `first`.
template <class Byte>
inline Byte* part_at(Byte* token, int64_t first, Operand operand) {
  return token + first / part_inputs * part_bytes(part_inputs, operand);
}

/// Inputs that such a part has room for.
inline int64_t part_room(int64_t inputs, int64_t first) {
  return std::min(part_inputs, round_up(inputs, 64) - first);
}

inline NonzeroInputs nonzero_of(const PreparedProduct& p, int64_t token, int64_t first) {
  const int64_t inputs = p.product->x.cols();
  const std::byte* part = part_at(p.x + token * nonzero_bytes(inputs, p.operand), first, p.operand);
  int64_t count = 0;
  std::memcpy(&count, part, sizeof count);
  const auto* places = reinterpret_cast<const uint16_t*>(part + part_header_bytes);
  return {count, places, reinterpret_cast<const std::byte*>(places + part_room(inputs, first))};
}

}  // namespace
}  // namespace rwkv::cpu::ISA
