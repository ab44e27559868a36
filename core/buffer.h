// Memory with its deleter. Move-only; a default Buffer is empty, and so is one that was moved from.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <utility>

namespace rwkv {

/// Of x86 and most others. Reading weights from huge pages needs fewer translations of addresses.
constexpr size_t huge_page = size_t{2} << 20;

class Buffer {
 public:
  using Deleter = std::function<void(std::byte*)>;

  Buffer() = default;
  Buffer(std::byte* data, size_t size, Deleter deleter) : data_(data, std::move(deleter)), size_(size) {}
  ~Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  /// Host memory aligned to 64 bytes and filled with zeros; from huge_page bytes on in huge pages, where the
  /// system has them. Throws Error when there is not enough.
  static Buffer host(size_t size);
  /// The same with whatever is in it. Pages then lie near the processor whose thread writes them first.
  static Buffer uninitialized(size_t size);

  [[nodiscard]] std::byte* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const { return {data(), size_}; }

 private:
  std::unique_ptr<std::byte, Deleter> data_{nullptr, [](std::byte*) {}};
  size_t size_ = 0;
};

}  // namespace rwkv
