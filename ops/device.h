// Where a model's layers live and run: memory and the operators on it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "core/buffer.h"
#include "ops/ops.h"

namespace rwkv {

/// Memory that is filled from the host while operators run on what was filled before. The slots are numbered
/// from 0; whose memory a slot is, the caller knows.
class Slots {
 public:
  virtual ~Slots() = default;

  /// Copies staging memory into the slot's, when its last readers are done. Returns at once; `from` stays as
  /// it is until operators that were queued after acquire() are known to be done.
  virtual void fill(int slot, std::byte* to, const std::byte* from, size_t bytes) = 0;
  /// Operators that are queued from now on run when the slot is filled.
  virtual void acquire(int slot) = 0;
  /// The operators queued so far were the slot's last readers.
  virtual void release(int slot) = 0;
};

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

  /// Bytes that allocate() can still give.
  [[nodiscard]] virtual uint64_t free_memory() const = 0;
  /// Of so much free memory, what a strategy that is chosen for the device leaves: for what the driver takes
  /// beside what is asked of it.
  [[nodiscard]] virtual uint64_t spare_memory(uint64_t /*free*/) const { return 0; }

  /// Host memory that copies to this device read in place, at the link's full speed. Throws Error.
  virtual Buffer allocate_staging(size_t bytes) = 0;
  /// Makes existing host memory such (bytes that stay until the result is gone); empty when that cannot be:
  /// then copy it into staging memory.
  virtual Buffer pin(std::span<const std::byte> bytes) = 0;

  /// Copies between the host's memory and this device's, and waits for that, but for no operators: see
  /// Ops::synchronize().
  virtual void copy_in(std::byte* device, const std::byte* host, size_t bytes) = 0;
  virtual void copy_out(std::byte* host, const std::byte* device, size_t bytes) = 0;
  /// Copies within this device's memory; likewise.
  virtual void copy(std::byte* to, const std::byte* from, size_t bytes) = 0;

  /// Bytes of this device's memory that operators take after Ops::reserve().
  [[nodiscard]] virtual uint64_t workspace_bytes(const Ops::Limits& limits) const = 0;
  /// Operators on this device with a queue of their own. One thread at a time may use them.
  virtual std::unique_ptr<Ops> make_ops() = 0;
  /// `slots` places to fill beside the queue of `ops`, which must live longer.
  virtual std::unique_ptr<Slots> make_slots(Ops& ops, int slots) = 0;
};

}  // namespace rwkv
