// bf16 in 12 bits a weight: where everything lies, what cannot be coded, and that no bit is lost.
#include "ops/coding.h"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "core/half.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

TEST_SUITE_BEGIN("ops");

namespace rwkv::test {
namespace {

/// A unit of cpu_blocks, [input / 2][16][2], and the same coded.
struct Block {
  explicit Block(int64_t inputs) : layout{Layout::cpu_blocks, DType::bf16, 16, inputs} {
    bits.resize(static_cast<size_t>(layout.unit_bytes() / 2));
  }

  [[nodiscard]] uint16_t& at(int64_t output, int64_t input) {
    return bits[static_cast<size_t>((input / 2 * 16 + output) * 2 + input % 2)];
  }
  [[nodiscard]] const std::byte* data() const { return reinterpret_cast<const std::byte*>(bits.data()); }
  [[nodiscard]] bool codable() const { return is_codable(coded(layout), data()); }
  /// Encodes, and gives back whether that went well.
  bool encode() {
    unit.assign(static_cast<size_t>(coded(layout).unit_bytes()), std::byte{99});
    return encode_block(coded(layout), data(), unit.data());
  }
  /// As drawn in ops/coding.h.
  [[nodiscard]] uint16_t decoded(int64_t output, int64_t input) const {
    const auto* segment = reinterpret_cast<const uint8_t*>(unit.data()) + input / 256 * (64 + 32 * 192);
    const int64_t element = (input % 256 / 2 * 16 + output) * 2 + input % 2;
    const uint8_t* group = segment + 64 + element / 128 * 192;
    const int64_t line = element % 128 / 32, turn = element % 32 / 8, half = line / 2;
    const int64_t byte = turn * 16 + line % 2 * 8 + element % 8;
    const uint8_t codes = group[128 + byte], code = half == 0 ? codes & 15 : codes >> 4;
    uint8_t upper = segment[code];
    for (int64_t i = 0; i < segment[61]; i++) {
      uint16_t position = 0;
      std::memcpy(&position, segment + 16 + 2 * i, 2);
      if (position == element) upper = segment[46 + i];
    }
    return static_cast<uint16_t>(upper << 8 | group[half * 64 + byte]);
  }
  /// Weights that do not come back, as drawn and by decode_segment().
  [[nodiscard]] int64_t lost() {
    int64_t count = 0;
    SegmentElements elements;
    for (int64_t input = 0; input < layout.inputs; input++) {
      if (input % 256 == 0) decode_segment(unit.data() + input / 256 * segment_bytes, elements);
      for (int64_t output = 0; output < 16; output++) {
        const auto e = static_cast<size_t>((input % 256 / 2 * 16 + output) * 2 + input % 2);
        count += decoded(output, input) != at(output, input) || elements[e] != at(output, input);
      }
    }
    return count;
  }

  MatrixLayout layout;
  std::vector<uint16_t> bits;
  std::vector<std::byte> unit;
};

Block normal_block(int64_t inputs, uint64_t seed, float size = 1) {
  Random random(seed);
  Block block(inputs);
  for (int64_t output = 0; output < 16; output++) {
    for (int64_t input = 0; input < inputs; input++)
      block.at(output, input) = to_bfloat16(random.normal(size)).bits;
  }
  return block;
}

/// The first `count` of some elements, ends of groups and of the segment among them, get upper bytes that no
/// other has.
void add_exceptions(Block& block, size_t count) {
  constexpr int64_t places[] = {0,    1,    31,   32,   63,   64,   127,  128, 2000,
                                2001, 2002, 4000, 4032, 4094, 4095, 3000, 3001};
  for (size_t i = 0; i < count; i++)
    block.bits[static_cast<size_t>(places[i])] = static_cast<uint16_t>((0x60 + i) << 8 | 0x12);
}

}  // namespace

TEST_CASE("coding: every weight comes back with all its bits, whatever the sizes") {
  uint64_t seed = 1;
  for (int64_t inputs : {1, 2, 7, 8, 63, 64, 254, 255, 256, 257, 300, 511, 512, 513, 1024, 1030}) {
    for (float size : {1e-30f, 0.02f, 1.0f, 1e30f}) {
      CAPTURE(inputs);
      CAPTURE(size);
      Block block = normal_block(inputs, seed++, size);
      REQUIRE(block.codable());
      REQUIRE(block.encode());
      CHECK(block.lost() == 0);
    }
  }
}

TEST_CASE("coding: zeros of both signs, infinities, NaN and the smallest numbers keep their bits") {
  Block block(512);
  constexpr uint16_t values[] = {0, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0xffff, 1, 0x8001, 0x3f80, 0xbf81};
  for (size_t i = 0; i < block.bits.size(); i++) block.bits[i] = values[i * 7 % std::size(values)];
  REQUIRE(block.encode());
  CHECK(block.lost() == 0);
}

TEST_CASE("coding: fifteen exceptions in a segment, but not sixteen") {
  for (size_t count = 0; count <= 17; count++) {
    CAPTURE(count);
    Block block(300);
    for (size_t i = 0; i < block.bits.size(); i++)
      block.bits[i] = static_cast<uint16_t>(i % 16 << 8 | i % 251);
    add_exceptions(block, count);
    CHECK(block.codable() == (count <= 15));
    REQUIRE(block.encode() == (count <= 15));
    if (count > 15) continue;
    CHECK(block.lost() == 0);
    CHECK(static_cast<size_t>(block.unit[61]) == count);
  }
}

TEST_CASE("coding: exceptions of one segment do not count for another") {
  Block block = normal_block(1024, 5);
  for (int64_t segment = 0; segment < 4; segment++) {
    for (int64_t i = 0; i < 10; i++)
      block.at(i, segment * 256 + i * 25) = static_cast<uint16_t>((i + 1) << 8);
  }
  REQUIRE(block.encode());
  CHECK(block.lost() == 0);
}

TEST_CASE("coding: the most frequent upper bytes have the codes, in an order that is always the same") {
  Block block(256);
  for (size_t i = 0; i < block.bits.size(); i++) block.bits[i] = static_cast<uint16_t>(i % 32 / 2 * 3 << 8);
  block.bits[5] = 18 << 8;  // instead of 6
  REQUIRE(block.encode());
  constexpr size_t expected[] = {18, 0, 3, 9, 12, 15, 21, 24, 27, 30, 33, 36, 39, 42, 45, 6};
  for (size_t code = 0; code < 16; code++) CHECK(static_cast<size_t>(block.unit[code]) == expected[code]);
  CHECK(block.lost() == 0);
}

TEST_CASE("coding: sizes, and what is worth it") {
  auto layout = [](int64_t inputs) { return MatrixLayout{Layout::cpu_blocks, DType::bf16, 100, inputs}; };
  CHECK(coded(layout(256)).unit_bytes() == 6208);
  CHECK(coded(layout(257)).unit_bytes() == 2 * 6208);
  CHECK(coded(layout(4096)).bytes() == 7 * 16 * 6208);
  CHECK(coded(layout(0)).bytes() == 0);
  CHECK(uncoded(coded(layout(300))).layout == Layout::cpu_blocks);
  for (int64_t inputs : {196, 256, 512, 700, 768, 4096}) CHECK(is_worth_coding(layout(inputs)));
  for (int64_t inputs : {0, 1, 64, 160, 194, 260, 300}) CHECK(!is_worth_coding(layout(inputs)));
  for (DType type : {DType::f32, DType::f16, DType::i8, DType::i4})
    CHECK(!is_worth_coding({Layout::cpu_blocks, type, 100, 1024}));
  for (Layout other : {Layout::cuda_blocks, Layout::input_rows, Layout::cpu_coded})
    CHECK(!is_worth_coding({other, DType::bf16, 100, 1024}));
  CHECK_NOTHROW(check_layout(coded(layout(300)), "matrix"));
  CHECK(error_of([] {
          check_layout({Layout::cpu_coded, DType::f16, 16, 256}, "matrix");
        }) == "matrix: a matrix of 16 by 256 fp16 cannot be laid out");
}

TEST_CASE("coding: from coded blocks to other layouts and types") {
  const MatrixLayout from = coded({Layout::cpu_blocks, DType::bf16, 16, 512});
  Block block = normal_block(512, 9, 0.1f);
  REQUIRE(block.encode());
  std::vector<float> values(16 * 512), tile(16 * 512);
  unpack_unit(from, 0, block.unit.data(), values.data());
  for (Layout layout : {Layout::cpu_blocks, Layout::cuda_blocks}) {
    for (DType type : {DType::f32, DType::bf16, DType::f16, DType::i8, DType::i4}) {
      CAPTURE(name_of(type));
      const MatrixLayout to{layout, type, 16, 512};
      std::vector<std::byte> repacked(static_cast<size_t>(to.unit_bytes())), expected(repacked.size());
      repack_unit(from, 0, block.unit.data(), to, repacked.data(), tile.data());
      pack_unit(to, 0, values.data(), expected.data());
      CHECK(repacked == expected);
    }
  }
  for (int64_t i = 0; i < 512; i++)
    CHECK(values[static_cast<size_t>(512 + i)] == to_float(BFloat16{block.at(1, i)}));
}

TEST_CASE("coding: whatever a segment's bytes are, it can be decoded") {
  Random random(11);
  for (int round = 0; round < 50; round++) {
    std::vector<std::byte> unit(static_cast<size_t>(segment_bytes));
    for (std::byte& b : unit) b = static_cast<std::byte>(random.index(256));
    SegmentElements elements;
    decode_segment(unit.data(), elements);
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
