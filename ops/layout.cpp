#include "ops/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/checked.h"
#include "core/error.h"
#include "core/half.h"
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

// Where an int8 of a block lies, in bytes from the start of the block.
int64_t int8_index(int64_t row, int64_t input) {
  int64_t inside = input % int8_inputs;
  return input / int8_inputs * int8_step_bytes + line + (inside / 4 * block_outputs + row) * 4 + inside % 4;
}

int64_t scale_index(int64_t row, int64_t input) {
  int64_t group = input % int8_inputs / scale_group;
  return input / int8_inputs * int8_step_bytes + (group * block_outputs + row) * 2;
}

void pack_int8_block(const MatrixLayout& m, int64_t rows, const float* tile, std::byte* packed) {
  std::array<int8_t, scale_group> q{};
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t input = 0; input < m.inputs; input += scale_group) {
      int64_t count = std::min(scale_group, m.inputs - input);
      BFloat16 scale = quantize_group(tile + row * m.inputs + input, count, 1, q.data());
      std::memcpy(packed + scale_index(row, input), &scale.bits, 2);
      for (int64_t i = 0; i < count; i++) {
        packed[int8_index(row, input + i)] = static_cast<std::byte>(q[static_cast<size_t>(i)]);
      }
    }
  }
}

int64_t row_scales_bytes(const MatrixLayout& m) {
  return round_up((m.outputs + scale_group - 1) / scale_group * 2, line);
}

void pack_int8_row(const MatrixLayout& m, const float* tile, std::byte* packed) {
  std::byte* values = packed + row_scales_bytes(m);
  for (int64_t i = 0; i < m.outputs; i += scale_group) {
    int64_t count = std::min(scale_group, m.outputs - i);
    BFloat16 scale = quantize_group(tile + i, count, 1, reinterpret_cast<int8_t*>(values + i));
    std::memcpy(packed + i / scale_group * 2, &scale.bits, 2);
  }
}

// cuda_blocks: elements of a row with its padding.
int64_t padded_inputs(const MatrixLayout& m) {
  return round_up(m.inputs,
                  m.dtype == DType::i8 ? int8_inputs : line / static_cast<int64_t>(size_of(m.dtype)));
}

// cuda_blocks, int8: where the scales of a row begin in the block.
int64_t row_scales_offset(const MatrixLayout& m, int64_t row) {
  int64_t inputs = padded_inputs(m);
  return block_outputs * inputs + row * (inputs / scale_group) * 2;
}

void pack_cuda_row(const MatrixLayout& m, int64_t row, const float* values, std::byte* packed) {
  std::byte* out = packed + row * padded_inputs(m) * static_cast<int64_t>(size_of(m.dtype));
  if (m.dtype != DType::i8) return from_f32(values, m.dtype, m.inputs, out);
  std::byte* scales = packed + row_scales_offset(m, row);
  for (int64_t i = 0; i < m.inputs; i += scale_group) {
    int64_t count = std::min(scale_group, m.inputs - i);
    BFloat16 scale = quantize_group(values + i, count, 1, reinterpret_cast<int8_t*>(out + i));
    std::memcpy(scales + i / scale_group * 2, &scale.bits, 2);
  }
}

float int8_value(const std::byte* value, const std::byte* scale) {
  return static_cast<float>(static_cast<int8_t>(*value)) * load_element(scale, DType::bf16);
}

}  // namespace

int64_t MatrixLayout::units() const {
  return layout == Layout::input_rows ? inputs : (outputs + block_outputs - 1) / block_outputs;
}

int64_t MatrixLayout::unit_bytes() const {
  auto element = static_cast<int64_t>(size_of(dtype));
  if (layout == Layout::cpu_blocks) {
    if (dtype == DType::i8) return round_up(inputs, int8_inputs) / int8_inputs * int8_step_bytes;
    int64_t padded = dtype == DType::bf16 ? round_up(inputs, 2) : inputs;
    return round_up(padded * block_outputs * element, line);
  }
  if (layout == Layout::cuda_blocks) {
    int64_t padded = padded_inputs(*this);
    return block_outputs * (padded * element + (dtype == DType::i8 ? padded / scale_group * 2 : 0));
  }
  int64_t values = round_up(outputs * element, line);
  return dtype == DType::i8 ? row_scales_bytes(*this) + values : values;
}

int64_t MatrixLayout::tile_rows(int64_t u) const {
  return layout == Layout::input_rows ? 1 : std::min(block_outputs, outputs - u * block_outputs);
}

int64_t MatrixLayout::tile_cols() const { return layout == Layout::input_rows ? outputs : inputs; }

void check_layout(const MatrixLayout& m, const char* what) {
  constexpr int64_t limit = int64_t{1}
                            << 31;  // far above any model, far below overflow of the formulas above
  bool known = m.layout != Layout::plain && m.dtype != DType::u8 && m.dtype != DType::i32;
  if (!known || m.outputs < 0 || m.inputs < 0 || m.outputs > limit || m.inputs > limit) {
    throw Error(fmt::format("{}: a matrix of {} by {} {} cannot be laid out", what, m.outputs, m.inputs,
                            name_of(m.dtype)));
  }
  checked_mul(static_cast<uint64_t>(m.units()), static_cast<uint64_t>(m.unit_bytes()), what);
}

void pack_unit(const MatrixLayout& m, int64_t u, const float* tile, std::byte* packed) {
  std::fill_n(packed, m.unit_bytes(), std::byte{0});
  if (m.layout == Layout::input_rows) {
    if (m.dtype == DType::i8) {
      pack_int8_row(m, tile, packed);
    } else {
      from_f32(tile, m.dtype, m.outputs, packed);
    }
    return;
  }
  int64_t rows = m.tile_rows(u);
  if (m.layout == Layout::cuda_blocks) {
    for (int64_t row = 0; row < rows; row++) pack_cuda_row(m, row, tile + row * m.inputs, packed);
    return;
  }
  if (m.dtype == DType::i8) return pack_int8_block(m, rows, tile, packed);
  auto element = static_cast<int64_t>(size_of(m.dtype));
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t input = 0; input < m.inputs; input++) {
      store_element(tile[row * m.inputs + input], m.dtype,
                    packed + block_index(m.dtype, row, input) * element);
    }
  }
}

void unpack_unit(const MatrixLayout& m, int64_t u, const std::byte* packed, float* tile) {
  if (m.layout == Layout::input_rows) {
    if (m.dtype != DType::i8) return to_f32(packed, m.dtype, m.outputs, tile);
    const std::byte* values = packed + row_scales_bytes(m);
    for (int64_t i = 0; i < m.outputs; i++) tile[i] = int8_value(values + i, packed + i / scale_group * 2);
    return;
  }
  bool rowwise = m.layout == Layout::cuda_blocks;
  auto element = static_cast<int64_t>(size_of(m.dtype));
  int64_t rows = m.tile_rows(u), padded = rowwise ? padded_inputs(m) : 0;
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t input = 0; input < m.inputs; input++) {
      int64_t at = rowwise                ? (row * padded + input) * element
                   : m.dtype == DType::i8 ? int8_index(row, input)
                                          : block_index(m.dtype, row, input) * element;
      int64_t scale = rowwise ? row_scales_offset(m, row) + input / scale_group * 2 : scale_index(row, input);
      tile[row * m.inputs + input] =
          m.dtype == DType::i8 ? int8_value(packed + at, packed + scale) : load_element(packed + at, m.dtype);
    }
  }
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
