// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace rwkv {

class Sha256 {
 public:
  enum class Path { fastest, portable };

  /// `portable` does without the processor's SHA instructions. The digest is the same.
  explicit Sha256(Path path = Path::fastest);

  void update(std::span<const std::byte> bytes);
  /// The digest as 64 lower-case hexadecimal digits. Call it once, last.
  std::string finish();

 private:
  using State = std::array<uint32_t, 8>;

  State state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};
  uint64_t length_ = 0;
  void (*compress_)(State& state, const std::byte* blocks, size_t count);
};

}  // namespace rwkv
