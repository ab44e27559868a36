#include "ops/coding.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <iterator>
#include <numeric>

#include "core/checked.h"

namespace rwkv {
namespace {

/// Where in its group the lower byte of an element is.
constexpr auto lower_bytes = [] {
  std::array<uint8_t, group_elements> places{};
  for (size_t e = 0; e < places.size(); e++) {
    const size_t line = e / 32, in_line = e % 32;
    places[e] = static_cast<uint8_t>(line / 2 * 64 + in_line / 8 * 16 + line % 2 * 8 + in_line % 8);
  }
  return places;
}();

struct CodePlace {
  int64_t byte;  // of the group
  int shift;
};
CodePlace place_of_code(int64_t lower) {
  return {group_elements + lower % 64, static_cast<int>(lower / 64 * 4)};
}

uint16_t element(const std::byte* segment, int64_t e) {
  uint16_t bits = 0;
  std::memcpy(&bits, segment + e * 2, 2);
  return bits;
}

constexpr uint8_t no_code = 255;

/// The codes of a segment of which the elements from `count` on are zero.
struct Codes {
  SegmentHead head;
  std::array<uint8_t, 256> code_of;  ///< of an upper byte, or no_code
  int64_t without = 0;               ///< elements that have none
};

Codes choose_codes(const std::byte* elements, int64_t count) {
  std::array<int64_t, 256> occurrences{};
  for (int64_t e = 0; e < count; e++) occurrences[element(elements, e) >> 8]++;
  occurrences[0] += segment_elements - count;
  std::array<uint8_t, 256> bytes{};
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  std::partial_sort(bytes.begin(), bytes.begin() + 16, bytes.end(), [&](uint8_t a, uint8_t b) {
    return occurrences[a] != occurrences[b] ? occurrences[a] > occurrences[b] : a < b;
  });
  Codes codes{{}, {}, segment_elements};
  codes.code_of.fill(no_code);
  for (uint8_t code = 0; code < 16; code++) {
    codes.head.upper[code] = bytes[code];
    codes.code_of[bytes[code]] = code;
    codes.without -= occurrences[bytes[code]];
  }
  return codes;
}

bool fits(const Codes& codes) { return codes.without <= std::ssize(codes.head.exceptions); }

void encode_segment(const std::byte* elements, int64_t count, Codes& codes, std::byte* out) {
  std::fill_n(out, segment_bytes, std::byte{0});
  SegmentHead& head = codes.head;
  for (int64_t e = 0; e < segment_elements; e++) {
    const uint16_t bits = e < count ? element(elements, e) : uint16_t{0};
    uint8_t code = codes.code_of[bits >> 8];
    if (code == no_code) {
      head.positions[head.count] = static_cast<uint16_t>(e);
      head.exceptions[head.count++] = static_cast<uint8_t>(bits >> 8);
      code = 0;
    }
    std::byte* group = out + sizeof head + e / group_elements * group_bytes;
    const int64_t lower = lower_bytes[static_cast<size_t>(e % group_elements)];
    const CodePlace place = place_of_code(lower);
    group[lower] = static_cast<std::byte>(bits & 255);
    group[place.byte] |= std::byte{code} << place.shift;
  }
  std::memcpy(out, &head, sizeof head);
}

/// visit(elements, their number, codes, number of the segment) for each segment; false, without going on, at
/// the first that has too many exceptions.
template <class Visit>
bool all_segments(const MatrixLayout& m, const std::byte* block, Visit visit) {
  const int64_t elements = round_up(m.inputs, 2) * block_outputs;
  for (int64_t first = 0; first < elements; first += segment_elements) {
    const std::byte* begin = block + first * 2;
    const int64_t count = std::min(segment_elements, elements - first);
    Codes codes = choose_codes(begin, count);
    if (!fits(codes)) return false;
    visit(begin, count, codes, first / segment_elements);
  }
  return true;
}

}  // namespace

MatrixLayout coded(MatrixLayout blocks) {
  assert(blocks.layout == Layout::cpu_blocks && blocks.dtype == DType::bf16);
  blocks.layout = Layout::cpu_coded;
  return blocks;
}

MatrixLayout uncoded(MatrixLayout coded) {
  assert(coded.layout == Layout::cpu_coded);
  coded.layout = Layout::cpu_blocks;
  return coded;
}

bool is_worth_coding(const MatrixLayout& m) {
  return m.layout == Layout::cpu_blocks && m.dtype == DType::bf16 && coded(m).unit_bytes() < m.unit_bytes();
}

bool is_codable(const MatrixLayout& m, const std::byte* block) {
  return all_segments(m, block, [](const std::byte*, int64_t, const Codes&, int64_t) {});
}

bool encode_block(const MatrixLayout& m, const std::byte* block, std::byte* out) {
  return all_segments(m, block, [&](const std::byte* elements, int64_t count, Codes& codes, int64_t segment) {
    encode_segment(elements, count, codes, out + segment * segment_bytes);
  });
}

void decode_segment(const std::byte* segment, SegmentElements& elements) {
  SegmentHead head;
  std::memcpy(&head, segment, sizeof head);
  for (size_t e = 0; e < elements.size(); e++) {
    const std::byte* group = segment + sizeof head + e / group_elements * group_bytes;
    const int64_t lower = lower_bytes[e % group_elements];
    const CodePlace place = place_of_code(lower);
    const auto code = static_cast<size_t>(group[place.byte] >> place.shift & std::byte{15});
    elements[e] = static_cast<uint16_t>(head.upper[code] << 8 | static_cast<uint8_t>(group[lower]));
  }
  for (size_t i = 0; i < std::min<size_t>(head.count, std::size(head.exceptions)); i++) {
    if (head.positions[i] >= elements.size()) continue;
    uint16_t& bits = elements[head.positions[i]];
    bits = static_cast<uint16_t>(head.exceptions[i] << 8 | (bits & 255));
  }
}

}  // namespace rwkv
