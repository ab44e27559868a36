#include "ops/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "core/checked.h"
#include "core/error.h"
#include "core/half.h"
#include "ops/coding.h"
#include "ops/quantize.h"

namespace rwkv {
namespace {

constexpr int64_t line = 64;  // bytes

void store_element(float value, DType dtype, std::byte* out) {
  if (dtype == DType::f32) {
    std::memcpy(out, &value, 4);
  } else {
    uint16_t bits = dtype == DType::f16 ? to_half(value).bits : to_bfloat16(value).bits;
    std::memcpy(out, &bits, 2);
  }
}

float load_element(const std::byte* in, DType dtype) {
  if (dtype == DType::f32) {
    float value = 0;
    std::memcpy(&value, in, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, in, 2);
  return dtype == DType::f16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

// Where a floating point element of a block lies, in elements.
int64_t block_index(DType dtype, int64_t row, int64_t input) {
  if (dtype == DType::bf16) return (input / 2 * block_outputs + row) * 2 + input % 2;
  return input * block_outputs + row;
}

// cuda_blocks: elements of a row with its padding.
int64_t padded_inputs(const MatrixLayout& m) {
  return round_up(m.inputs, is_quantized(m.dtype) ? step_inputs : line / bytes_of(m.dtype, 1));
}

// input_rows, quantized: bytes of the scales before the integers.
int64_t row_scales_bytes(const MatrixLayout& m) {
  return round_up((m.outputs + scale_group - 1) / scale_group * 2, line);
}

// Where an integer lies in its unit, and the scale of its group. `row` and `col` are those of the unit's
// tile.
struct Place {
  int64_t byte;
  int shift;  // of bits in the byte
  int64_t scale;
};

Place place_in_block(DType dtype, int64_t row, int64_t input) {
  const int64_t step = input / step_inputs * step_bytes(dtype), inside = input % step_inputs;
  const int64_t scale = step + (inside / scale_group * block_outputs + row) * 2;
  const int64_t quad = dtype == DType::i4 ? inside / 8 : inside / 4;
  const int64_t byte = step + line + (quad * block_outputs + row) * 4 + inside % 4;
  return {byte, dtype == DType::i4 ? static_cast<int>(inside / 4 % 2 * 4) : 0, scale};
}

Place place_in_row(DType dtype, int64_t begin, int64_t scales, int64_t col) {
  const int64_t bits = col * bits_of(dtype);
  return {begin + bits / 8, static_cast<int>(bits % 8), scales + col / scale_group * 2};
}

Place place_of(const MatrixLayout& m, int64_t row, int64_t col) {
  if (m.layout == Layout::cpu_blocks) return place_in_block(m.dtype, row, col);
  if (m.layout == Layout::input_rows) return place_in_row(m.dtype, row_scales_bytes(m), 0, col);
  const int64_t padded = padded_inputs(m), row_bytes = bytes_of(m.dtype, padded);
  return place_in_row(m.dtype, row * row_bytes, block_outputs * row_bytes + row * (padded / scale_group) * 2,
                      col);
}

void pack_quantized(const MatrixLayout& m, int64_t u, const float* tile, std::byte* packed) {
  const int64_t cols = m.tile_cols();
  std::array<uint8_t, scale_group> codes{};
  for (int64_t row = 0; row < m.tile_rows(u); row++, tile += cols) {
    for (int64_t first = 0; first < cols; first += scale_group) {
      const int64_t count = std::min(scale_group, cols - first);
      const BFloat16 scale = quantize_group(m.dtype, tile + first, count, codes.data());
      std::memcpy(packed + place_of(m, row, first).scale, &scale.bits, 2);
      for (int64_t i = 0; i < count; i++) {
        const Place place = place_of(m, row, first + i);
        packed[place.byte] |= std::byte{codes[static_cast<size_t>(i)]} << place.shift;
      }
    }
  }
}

void unpack_quantized(const MatrixLayout& m, int64_t u, const std::byte* packed, float* tile) {
  for (int64_t row = 0; row < m.tile_rows(u); row++) {
    for (int64_t col = 0; col < m.tile_cols(); col++) {
      const Place place = place_of(m, row, col);
      const auto code = static_cast<uint8_t>(packed[place.byte] >> place.shift);
      *tile++ =
          static_cast<float>(integer_of(m.dtype, code)) * load_element(packed + place.scale, DType::bf16);
    }
  }
}

void move_quantized(const MatrixLayout& from, int64_t u, const std::byte* in, const MatrixLayout& to,
                    std::byte* out) {
  for (int64_t row = 0; row < from.tile_rows(u); row++) {
    for (int64_t col = 0; col < from.tile_cols(); col++) {
      const Place source = place_of(from, row, col), target = place_of(to, row, col);
      const std::byte code = in[source.byte] >> source.shift & std::byte((1 << bits_of(from.dtype)) - 1);
      out[target.byte] |= code << target.shift;
      if (col % scale_group == 0) std::memcpy(out + target.scale, in + source.scale, 2);
    }
  }
}

void unpack_coded(const MatrixLayout& m, int64_t u, const std::byte* packed, float* tile) {
  SegmentElements elements;
  for (int64_t first = 0; first < m.inputs; first += segment_inputs, packed += segment_bytes) {
    decode_segment(packed, elements);
    const int64_t inputs = std::min(segment_inputs, m.inputs - first);
    for (int64_t row = 0; row < m.tile_rows(u); row++) {
      for (int64_t i = 0; i < inputs; i++) {
        const auto e = static_cast<size_t>(block_index(DType::bf16, row, i));
        tile[row * m.inputs + first + i] = to_float(BFloat16{elements[e]});
      }
    }
  }
}

// Where a floating point element of a unit lies, in elements.
int64_t element_index(const MatrixLayout& m, int64_t row, int64_t col) {
  if (m.layout == Layout::cpu_blocks) return block_index(m.dtype, row, col);
  return m.layout == Layout::cuda_blocks ? row * padded_inputs(m) + col : col;
}

}  // namespace

int64_t MatrixLayout::units() const {
  return layout == Layout::input_rows ? inputs : (outputs + block_outputs - 1) / block_outputs;
}

int64_t MatrixLayout::unit_bytes() const {
  const bool quantized = is_quantized(dtype);
  if (layout == Layout::cpu_blocks) {
    if (quantized) return round_up(inputs, step_inputs) / step_inputs * step_bytes(dtype);
    int64_t padded = dtype == DType::bf16 ? round_up(inputs, 2) : inputs;
    return round_up(bytes_of(dtype, padded * block_outputs), line);
  }
  if (layout == Layout::cpu_coded) return round_up(inputs, segment_inputs) / segment_inputs * segment_bytes;
  if (layout == Layout::cuda_blocks) {
    int64_t padded = padded_inputs(*this);
    return block_outputs * (bytes_of(dtype, padded) + (quantized ? padded / scale_group * 2 : 0));
  }
  return round_up(bytes_of(dtype, outputs), line) + (quantized ? row_scales_bytes(*this) : 0);
}

int64_t MatrixLayout::tile_rows(int64_t u) const {
  return layout == Layout::input_rows ? 1 : std::min(block_outputs, outputs - u * block_outputs);
}

int64_t MatrixLayout::tile_cols() const { return layout == Layout::input_rows ? outputs : inputs; }

void check_layout(const MatrixLayout& m, const char* what) {
  constexpr int64_t limit = int64_t{1}
                            << 31;  // far above any model, far below overflow of the formulas above
  bool known = m.layout != Layout::plain && m.dtype != DType::u8 && m.dtype != DType::i32 &&
               (m.layout != Layout::cpu_coded || m.dtype == DType::bf16);
  if (!known || m.outputs < 0 || m.inputs < 0 || m.outputs > limit || m.inputs > limit) {
    throw Error(fmt::format("{}: a matrix of {} by {} {} cannot be laid out", what, m.outputs, m.inputs,
                            name_of(m.dtype)));
  }
  checked_mul(static_cast<uint64_t>(m.units()), static_cast<uint64_t>(m.unit_bytes()), what);
}

void pack_unit(const MatrixLayout& m, int64_t u, const float* tile, std::byte* packed) {
  assert(m.layout != Layout::cpu_coded);
  std::fill_n(packed, m.unit_bytes(), std::byte{0});
  if (is_quantized(m.dtype)) return pack_quantized(m, u, tile, packed);
  const auto element = bytes_of(m.dtype, 1);
  for (int64_t row = 0; row < m.tile_rows(u); row++) {
    for (int64_t col = 0; col < m.tile_cols(); col++)
      store_element(*tile++, m.dtype, packed + element_index(m, row, col) * element);
  }
}

void unpack_unit(const MatrixLayout& m, int64_t u, const std::byte* packed, float* tile) {
  if (m.layout == Layout::cpu_coded) return unpack_coded(m, u, packed, tile);
  if (is_quantized(m.dtype)) return unpack_quantized(m, u, packed, tile);
  const auto element = bytes_of(m.dtype, 1);
  for (int64_t row = 0; row < m.tile_rows(u); row++) {
    for (int64_t col = 0; col < m.tile_cols(); col++)
      *tile++ = load_element(packed + element_index(m, row, col) * element, m.dtype);
  }
}

void repack_unit(const MatrixLayout& from, int64_t u, const std::byte* in, const MatrixLayout& to,
                 std::byte* out, float* tile) {
  if (from.dtype == to.dtype && is_quantized(to.dtype)) {
    std::fill_n(out, to.unit_bytes(), std::byte{0});
    return move_quantized(from, u, in, to, out);
  }
  unpack_unit(from, u, in, tile);
  pack_unit(to, u, tile, out);
}

Tensor packed_view(const MatrixLayout& m, const std::byte* data) {
  return {const_cast<std::byte*>(data), m.dtype, m.layout, 2, 0, {m.outputs, m.inputs}, 0};
}

void to_f32(const std::byte* in, DType dtype, int64_t count, float* out) {
  auto element = static_cast<int64_t>(size_of(dtype));
  for (int64_t i = 0; i < count; i++) out[i] = load_element(in + i * element, dtype);
}

void from_f32(const float* in, DType dtype, int64_t count, std::byte* out) {
  auto element = static_cast<int64_t>(size_of(dtype));
  for (int64_t i = 0; i < count; i++) store_element(in[i], dtype, out + i * element);
}

}  // namespace rwkv
