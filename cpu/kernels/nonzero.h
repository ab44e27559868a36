// The inputs of tokens that are not zero: prepared once, read by products with input_rows weights.
//
// Inputs are cut into parts, and each part has a list of every token, one after the other: a header with the
// number of those that are not zero and their scale, their places in the part, ascending, and their values. A
// list has room for all inputs of its part.
#pragma once

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "cpu/kernels/operand.h"

namespace rwkv::cpu::ISA {

constexpr int64_t part_inputs = 256;
/// Inputs of a part that are not zero in trained models.
constexpr int64_t usual_count = part_inputs * 15 / 100;
constexpr int64_t list_header_bytes = 16;

namespace {

struct NonzeroInputs {
  int64_t count;
  const uint16_t* places;
  const std::byte* values;  ///< fp32, bf16 or int16; integers: an even number, with a zero behind an odd one
  float scale = 1;          ///< of integers; NaN when an input is too large for any
};

struct ListHeader {
  int64_t count;
  float scale;
};
static_assert(sizeof(ListHeader) <= list_header_bytes);

inline int64_t value_bytes(Operand operand) {
  return operand == Operand::nonzero_bf16 || operand == Operand::nonzero_integers ? 2 : 4;
}

inline int64_t list_bytes(int64_t room, Operand operand) {
  return list_header_bytes + room * (2 + value_bytes(operand));
}

static_assert(list_header_bytes + 64 * (2 + 4) <= 64 * operand_bytes,
              "the shortest list fits its inputs' room");

/// Inputs that a list has room for, of the part that begins with input `first`.
inline int64_t list_room(int64_t inputs, int64_t first) {
  return std::min(part_inputs, round_up(inputs, 64) - first);
}

/// Where a token's list is, of the part that begins with input `first`. x: the tokens, not prepared.
template <class Byte>
inline Byte* list_at(Byte* lists, const Tensor& x, int64_t token, int64_t first, Operand operand) {
  return lists + first / part_inputs * x.rows() * list_bytes(part_inputs, operand) +
         token * list_bytes(list_room(x.cols(), first), operand);
}

/// Bytes of a list's header and places: its values come then.
inline int64_t values_offset(int64_t count) { return list_header_bytes + round_up(count, 2) * 2; }

inline NonzeroInputs nonzero_of(const PreparedProduct& p, int64_t token, int64_t first) {
  const std::byte* list = list_at(p.x, p.product->x, token, first, p.operand);
  ListHeader header{};
  std::memcpy(&header, list, sizeof header);
  return {header.count, reinterpret_cast<const uint16_t*>(list + list_header_bytes),
          list + values_offset(header.count), header.scale};
}

/// Asks for a list of usual length, by prefetch() or prefetch_to_write().
template <class Ask>
void fetch_list(const std::byte* list, Operand operand, Ask ask) {
  for (int64_t at = 0; at < list_bytes(usual_count, operand); at += line_bytes) ask(list + at);
}

}  // namespace
}  // namespace rwkv::cpu::ISA
