#include "core/crc32.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string_view>
#include <vector>

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// By the definition: one bit at a time.
uint32_t reference(std::span<const std::byte> bytes, uint32_t crc = 0) {
  crc = ~crc;
  for (std::byte byte : bytes) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xedb88320 : crc >> 1;
  }
  return ~crc;
}

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(size);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

}  // namespace

TEST_CASE("crc32: published values") {
  CHECK(crc32({}) == 0);
  CHECK(crc32(bytes_of("123456789")) == 0xcbf43926);
  CHECK(crc32(bytes_of("The quick brown fox jumps over the lazy dog")) == 0x414fa339);
  CHECK(crc32(std::vector<std::byte>(32)) == 0x190a55ad);
  CHECK(crc32(std::vector<std::byte>(32, std::byte{0xff})) == 0xff6cab0b);
}

TEST_CASE("crc32: equals the definition at every length to 1100 and every alignment") {
  std::vector<std::byte> data = random_bytes(1200);
  std::span<const std::byte> bytes(data);
  for (size_t start : {0, 1, 3, 8, 15}) {
    uint32_t expected = 0x12345678;
    for (size_t length = 0; length <= 1100; length++) {
      REQUIRE(crc32(bytes.subspan(start, length), 0x12345678) == expected);
      expected = reference(bytes.subspan(start + length, 1), expected);
    }
  }
}

TEST_CASE("crc32: one call equals many small ones, which take another path") {
  std::vector<std::byte> data = random_bytes(1'000'003);
  std::span<const std::byte> bytes(data);
  uint32_t whole = crc32(bytes);
  for (size_t piece : {1, 7, 8, 63, 100, 255, 256, 257, 4096, 65'537}) {
    uint32_t crc = 0;
    for (size_t i = 0; i < bytes.size(); i += piece) {
      crc = crc32(bytes.subspan(i, std::min(piece, bytes.size() - i)), crc);
    }
    CHECK(crc == whole);
  }
  CHECK(whole == reference(bytes));
}

TEST_CASE("crc32: every flipped bit changes it") {
  std::vector<std::byte> data = random_bytes(320);
  uint32_t whole = crc32(data);
  for (size_t bit = 0; bit < data.size() * 8; bit++) {
    data[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    REQUIRE(crc32(data) != whole);
    data[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
