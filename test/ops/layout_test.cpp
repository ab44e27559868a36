#include "ops/layout.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "core/half.h"
#include "ops/quantize.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

TEST_SUITE_BEGIN("ops");

namespace rwkv::test {
namespace {

// Where the element of output o and input i lies in the whole matrix, and its scale: written from the comment
// in ops/layout.h alone.
struct Position {
  int64_t value = 0, scale = -1;  // bytes
  int shift = 0;                  // of the bits in the first byte
};

int64_t lines(int64_t bytes) { return (bytes + 63) / 64; }

Position in_blocks(DType dtype, int64_t inputs, int64_t o, int64_t i) {
  int64_t block = o / 16, row = o % 16;
  switch (dtype) {
    case DType::f32:
      return {block * inputs * 64 + i * 64 + row * 4};
    case DType::f16:
      return {block * lines(inputs * 32) * 64 + i * 32 + row * 2};
    case DType::bf16:
      return {block * lines(inputs * 32) * 64 + (i / 2) * 64 + row * 4 + (i % 2) * 2};
    case DType::i4: {
      int64_t step = (block * ((inputs + 63) / 64) + i / 64) * (64 + 512), k = i % 64, upper = k % 8 / 4;
      return {step + 64 + k / 8 * 64 + row * 4 + k % 4, step + k / 32 * 32 + row * 2, upper ? 4 : 0};
    }
    default: {
      int64_t step = block * ((inputs + 63) / 64) * 1088 + i / 64 * 1088, k = i % 64;
      return {step + 64 + k / 4 * 64 + row * 4 + k % 4, step + k / 32 * 32 + row * 2};
    }
  }
}

Position in_rows(DType dtype, int64_t outputs, int64_t o, int64_t i) {
  if (dtype == DType::i8) {
    int64_t scales = lines((outputs + 31) / 32 * 2) * 64, row = i * (scales + lines(outputs) * 64);
    return {row + scales + o, row + o / 32 * 2};
  }
  if (dtype == DType::i4) {
    int64_t scales = lines((outputs + 31) / 32 * 2) * 64, row = i * (scales + lines((outputs + 1) / 2) * 64);
    return {row + scales + o / 2, row + o / 32 * 2, o % 2 ? 4 : 0};
  }
  auto size = static_cast<int64_t>(size_of(dtype));
  return {i * lines(outputs * size) * 64 + o * size};
}

Position in_padded_rows(DType dtype, int64_t inputs, int64_t o, int64_t i) {
  if (dtype == DType::i4) {
    int64_t row_bytes = (inputs + 63) / 64 * 32, scales = row_bytes / 16 * 2, row = o % 16;
    int64_t block = o / 16 * 16 * (row_bytes + scales);
    return {block + row * row_bytes + i / 2, block + 16 * row_bytes + row * scales + i / 32 * 2,
            i % 2 ? 4 : 0};
  }
  auto size = static_cast<int64_t>(size_of(dtype));
  int64_t row_bytes = lines(inputs * size) * 64, scales = dtype == DType::i8 ? row_bytes / 32 * 2 : 0;
  int64_t block = o / 16 * 16 * (row_bytes + scales), row = o % 16;
  return {block + row * row_bytes + i * size,
          dtype == DType::i8 ? block + 16 * row_bytes + row * scales + i / 32 * 2 : -1};
}

Position position(const MatrixLayout& m, int64_t o, int64_t i) {
  if (m.layout == Layout::cuda_blocks) return in_padded_rows(m.dtype, m.inputs, o, i);
  return m.layout == Layout::cpu_blocks ? in_blocks(m.dtype, m.inputs, o, i)
                                        : in_rows(m.dtype, m.outputs, o, i);
}

template <class T>
T read(const std::vector<std::byte>& bytes, int64_t at) {
  T value;
  std::memcpy(&value, std::span(bytes).subspan(static_cast<size_t>(at), sizeof value).data(), sizeof value);
  return value;
}

float value_at(const PackedMatrix& packed, int64_t o, int64_t i) {
  Position p = position(packed.layout, o, i);
  switch (packed.layout.dtype) {
    case DType::f32:
      return read<float>(packed.bytes, p.value);
    case DType::f16:
      return to_float(read<Half>(packed.bytes, p.value));
    case DType::bf16:
      return to_float(read<BFloat16>(packed.bytes, p.value));
    case DType::i4:
      return static_cast<float>(int4_levels[read<uint8_t>(packed.bytes, p.value) >> p.shift & 15]) *
             to_float(read<BFloat16>(packed.bytes, p.scale));
    default:
      return static_cast<float>(read<int8_t>(packed.bytes, p.value)) *
             to_float(read<BFloat16>(packed.bytes, p.scale));
  }
}

/// The value of a quantized weight among those that share its scale.
float quantized(const MatrixLayout& m, const std::vector<float>& values, int64_t o, int64_t i) {
  bool blocks = m.layout != Layout::input_rows;
  int64_t along = blocks ? i : o, first = along / 32 * 32,
          end = std::min(first + 32, blocks ? m.inputs : m.outputs);
  std::vector<float> group;
  for (int64_t k = first; k < end; k++)
    group.push_back(values[static_cast<size_t>(blocks ? o * m.inputs + k : k * m.inputs + i)]);
  std::vector<uint8_t> codes(32);
  BFloat16 scale = quantize_group(m.dtype, group.data(), end - first, codes.data());
  return integer_of(m.dtype, codes[static_cast<size_t>(along - first)]) * to_float(scale);
}

float stored(const MatrixLayout& m, const std::vector<float>& values, int64_t o, int64_t i) {
  float v = values[static_cast<size_t>(o * m.inputs + i)];
  switch (m.dtype) {
    case DType::f32:
      return v;
    case DType::f16:
      return to_float(to_half(v));
    case DType::bf16:
      return to_float(to_bfloat16(v));
    default:
      return quantized(m, values, o, i);
  }
}

void check_packing(const MatrixLayout& m) {
  Random random(static_cast<uint64_t>(m.outputs * 1000 + m.inputs));
  std::vector<float> values = random.normals(m.outputs * m.inputs);
  PackedMatrix packed(m, values);
  REQUIRE(m.bytes() % 64 == 0);
  std::vector<bool> used(packed.bytes.size());
  auto use = [&](int64_t at, size_t count) {
    for (size_t k = 0; k < count; k++) used.at(static_cast<size_t>(at) + k) = true;
  };
  int64_t wrong = 0;
  for (int64_t o = 0; o < m.outputs; o++) {
    for (int64_t i = 0; i < m.inputs; i++) {
      float expected = stored(m, values, o, i);
      wrong += value_at(packed, o, i) != expected || packed.row(o)[static_cast<size_t>(i)] != expected;
      Position p = position(m, o, i);
      use(p.value, static_cast<size_t>(bytes_of(m.dtype, 1)));
      if (p.scale >= 0) use(p.scale, 2);
    }
  }
  CHECK(wrong == 0);
  int64_t not_zero = 0;
  for (size_t k = 0; k < used.size(); k++) not_zero += !used[k] && packed.bytes[k] != std::byte{0};
  CHECK(not_zero == 0);  // padding
}

}  // namespace

TEST_CASE(
    "layout: every element lies where the documentation says, all else is zero, and unpacking gives it "
    "back") {
  for (Layout layout : {Layout::cpu_blocks, Layout::cuda_blocks, Layout::input_rows}) {
    for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i8, DType::i4}) {
      for (int64_t outputs : {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 129}) {
        for (int64_t inputs : {1, 2, 3, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 130}) {
          CAPTURE(static_cast<int>(layout));
          CAPTURE(name_of(dtype));
          CAPTURE(outputs);
          CAPTURE(inputs);
          check_packing({layout, dtype, outputs, inputs});
        }
      }
    }
  }
}

TEST_CASE("layout: integers and their scales stay as they are in another layout") {
  Random random(7);
  for (DType dtype : {DType::i8, DType::i4}) {
    MatrixLayout blocks{Layout::cpu_blocks, dtype, 37, 130}, others{Layout::cuda_blocks, dtype, 37, 130};
    PackedMatrix packed(blocks, random.normals(37 * 130));
    std::vector<float> tile(16 * 130), back(16 * 130);
    std::vector<std::byte> unit(static_cast<size_t>(others.unit_bytes()), std::byte{99}),
        again(static_cast<size_t>(blocks.unit_bytes()), std::byte{99});
    for (int64_t u = 0; u < blocks.units(); u++) {
      const std::byte* from = packed.bytes.data() + u * blocks.unit_bytes();
      repack_unit(blocks, u, from, others, unit.data(), tile.data());
      unpack_unit(blocks, u, from, tile.data());
      unpack_unit(others, u, unit.data(), back.data());
      auto count = static_cast<size_t>(blocks.tile_rows(u) * 130);
      CHECK(std::equal(tile.begin(), tile.begin() + static_cast<int64_t>(count), back.begin()));
      repack_unit(others, u, unit.data(), blocks, again.data(), tile.data());
      CHECK(std::equal(again.begin(), again.end(), from));
    }
  }
}

TEST_CASE("layout: sizes of units and of the whole") {
  struct {
    MatrixLayout m;
    int64_t units, unit_bytes, last_rows, cols;
  } cases[] = {
      {{Layout::cpu_blocks, DType::f32, 33, 7}, 3, 7 * 64, 1, 7},
      {{Layout::cpu_blocks, DType::f16, 32, 7}, 2, 4 * 64, 16, 7},
      {{Layout::cpu_blocks, DType::bf16, 31, 7}, 2, 4 * 64, 15, 7},
      {{Layout::cpu_blocks, DType::i8, 16, 65}, 1, 2 * 1088, 16, 65},
      {{Layout::cuda_blocks, DType::f32, 33, 17}, 3, 16 * 128, 1, 17},
      {{Layout::cuda_blocks, DType::f16, 32, 7}, 2, 16 * 64, 16, 7},
      {{Layout::cuda_blocks, DType::bf16, 31, 33}, 2, 16 * 128, 15, 33},
      {{Layout::cuda_blocks, DType::i8, 16, 65}, 1, 16 * (128 + 8), 16, 65},
      {{Layout::input_rows, DType::f32, 33, 7}, 7, 3 * 64, 1, 33},
      {{Layout::input_rows, DType::f16, 33, 7}, 7, 2 * 64, 1, 33},
      {{Layout::input_rows, DType::bf16, 32, 7}, 7, 64, 1, 32},
      {{Layout::input_rows, DType::i8, 33, 7}, 7, 64 + 64, 1, 33},
      {{Layout::input_rows, DType::i8, 1025, 7}, 7, 2 * 64 + 17 * 64, 1, 1025},
      {{Layout::cpu_blocks, DType::i4, 17, 65}, 2, 2 * 576, 1, 65},
      {{Layout::cuda_blocks, DType::i4, 16, 65}, 1, 16 * (64 + 8), 16, 65},
      {{Layout::input_rows, DType::i4, 33, 7}, 7, 64 + 64, 1, 33},
      {{Layout::input_rows, DType::i4, 1026, 7}, 7, 2 * 64 + 9 * 64, 1, 1026},
      {{Layout::cpu_blocks, DType::i8, 0, 65}, 0, 2 * 1088, 0, 65},
      {{Layout::cpu_blocks, DType::f32, 20, 0}, 2, 0, 4, 0},
      {{Layout::input_rows, DType::bf16, 20, 0}, 0, 64, 1, 20},
  };
  for (const auto& c : cases) {
    CAPTURE(static_cast<int>(c.m.layout));
    CAPTURE(name_of(c.m.dtype));
    CHECK(c.m.units() == c.units);
    CHECK(c.m.unit_bytes() == c.unit_bytes);
    CHECK(c.m.bytes() == c.units * c.unit_bytes);
    if (c.units > 0) CHECK(c.m.tile_rows(c.units - 1) == c.last_rows);
    CHECK(c.m.tile_cols() == c.cols);
    CHECK_NOTHROW(check_layout(c.m, "matrix"));
  }
}

TEST_CASE("layout: what cannot be laid out is refused, before its size overflows") {
  constexpr int64_t huge = int64_t{1} << 31, max = std::numeric_limits<int64_t>::max();
  for (Layout layout : {Layout::cpu_blocks, Layout::cuda_blocks, Layout::input_rows}) {
    MatrixLayout bad[] = {{layout, DType::u8, 1, 1},        {layout, DType::i32, 1, 1},
                          {layout, DType::f32, -1, 1},      {layout, DType::f32, 1, -1},
                          {layout, DType::i8, max, 1},      {layout, DType::i8, 1, max},
                          {layout, DType::i8, huge + 1, 1}, {layout, DType::f32, huge, huge}};
    for (const MatrixLayout& m : bad) {
      CHECK(error_of([&] {
              check_layout(m, "blocks.0.att.key.weight");
            }).starts_with("blocks.0.att.key.weight: "));
    }
    CHECK(error_of([&] { check_layout({layout, DType::f16, 1000, huge}, "m"); }) == "");
  }
  CHECK(error_of([&] {
          check_layout({Layout::plain, DType::f32, 1, 1}, "m");
        }) == "m: a matrix of 1 by 1 fp32 cannot be laid out");
}

TEST_CASE("layout: a packed view has the sizes of the matrix and the form that it came from") {
  MatrixLayout m{Layout::input_rows, DType::bf16, 20, 33};
  std::byte data{};
  Tensor t = packed_view(m, &data);
  CHECK(t.data == &data);
  CHECK(t.rank == 2);
  CHECK(t.sizes[0] == 20);
  CHECK(t.sizes[1] == 33);
  MatrixLayout back = layout_of(t);
  CHECK(back.layout == m.layout);
  CHECK(back.dtype == m.dtype);
  CHECK(back.outputs == 20);
  CHECK(back.inputs == 33);
}

TEST_CASE("conversion of dense elements: exact from 16 bits, rounded to them") {
  std::vector<float> values = {0.0f, -0.0f, 1.0f, -1.5f, 0x1p-24f, 65504.0f, 1.00390625f, 3.0f, 1e-3f, 1e30f};
  auto count = static_cast<int64_t>(values.size());
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    CAPTURE(name_of(dtype));
    std::vector<std::byte> bytes(values.size() * size_of(dtype));
    std::vector<float> back(values.size());
    from_f32(values.data(), dtype, count, bytes.data());
    to_f32(bytes.data(), dtype, count, back.data());
    for (size_t i = 0; i < values.size(); i++) {
      float v = values[i];
      if (dtype == DType::f16) v = to_float(to_half(v));
      if (dtype == DType::bf16) v = to_float(to_bfloat16(v));
      CHECK(std::bit_cast<uint32_t>(back[i]) == std::bit_cast<uint32_t>(v));
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
