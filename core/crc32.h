// CRC-32 as zip uses it (reflected polynomial 0xEDB88320).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace rwkv {

/// The checksum of `bytes` appended to data whose checksum is `crc` (0 for none).
uint32_t crc32(std::span<const std::byte> bytes, uint32_t crc = 0);

}  // namespace rwkv
