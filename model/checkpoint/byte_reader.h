// A bounds-checked cursor over little-endian bytes of an untrusted file.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace rwkv {

static_assert(std::endian::native == std::endian::little);

class ByteReader {
 public:
  /// `where` begins the messages; it must outlive the reader. `base` is the offset of the first byte in what
  /// the messages count from.
  ByteReader(std::span<const std::byte> bytes, const std::string& where, uint64_t base = 0)
      : bytes_(bytes), where_(&where), base_(base) {}

  [[nodiscard]] uint64_t offset() const { return base_ + position_; }
  [[nodiscard]] uint64_t remaining() const { return bytes_.size() - position_; }

  /// The next bytes. Throws Error when fewer than `count` are left.
  std::span<const std::byte> bytes(uint64_t count) {
    if (count > remaining()) {
      throw Error(*where_ + ": needs " + std::to_string(count) + " bytes at byte " +
                  std::to_string(offset()) + ", but only " + std::to_string(remaining()) + " are left");
    }
    auto result = bytes_.subspan(position_, count);
    position_ += count;
    return result;
  }

  std::string_view text(uint64_t count) {
    auto span = bytes(count);
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }

  template <class Integer>
  Integer integer() {
    Integer value;
    std::memcpy(&value, bytes(sizeof(value)).data(), sizeof(value));
    return value;
  }
  uint8_t u8() { return integer<uint8_t>(); }
  uint16_t u16() { return integer<uint16_t>(); }
  uint32_t u32() { return integer<uint32_t>(); }
  uint64_t u64() { return integer<uint64_t>(); }

  /// The text up to the next line feed, which is skipped. Throws Error when there is none.
  std::string_view line() {
    std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + position_, remaining());
    size_t length = rest.find('\n');
    if (length == std::string_view::npos) {
      throw Error(*where_ + ": the line at byte " + std::to_string(offset()) + " does not end");
    }
    position_ += length + 1;
    return rest.substr(0, length);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string* where_;
  uint64_t base_;
  size_t position_ = 0;
};

}  // namespace rwkv
