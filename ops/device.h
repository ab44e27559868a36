// Where a model's layers live and run: memory and the operators on it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/buffer.h"
#include "ops/ops.h"

namespace rwkv {

class Device {
 public:
  virtual ~Device() = default;

  /// For people, for example "cpu (avx512bf16, 2 threads)".
  [[nodiscard]] virtual std::string description() const = 0;
  /// The number that tensors carry in Tensor::device; 0 is the host.
  [[nodiscard]] virtual uint8_t id() const = 0;
  [[nodiscard]] virtual int threads() const = 0;

  /// Memory of this device, aligned to 64 bytes and filled with zeros. Throws Error when there is not enough.
  virtual Buffer allocate(size_t bytes) = 0;

  /// Copies between the host's memory and this device's, and waits.
  virtual void copy_in(std::byte* device, const std::byte* host, size_t bytes) = 0;
  virtual void copy_out(std::byte* host, const std::byte* device, size_t bytes) = 0;
  /// Copies within this device's memory, and waits.
  virtual void copy(std::byte* to, const std::byte* from, size_t bytes) = 0;

  /// Operators on this device with a queue of their own. One thread at a time may use them.
  virtual std::unique_ptr<Ops> make_ops() = 0;
};

}  // namespace rwkv
