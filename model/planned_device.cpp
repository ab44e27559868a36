#include "model/planned_device.h"

#include <fmt/format.h>

#include "core/error.h"
#include "cuda/workspace.h"

namespace rwkv {
namespace {

class PlannedDevice final : public Device {
 public:
  PlannedDevice(int index, uint64_t free_memory) : index_(index), free_memory_(free_memory) {}

  [[nodiscard]] std::string description() const override { return fmt::format("cuda:{}", index_); }
  [[nodiscard]] uint8_t id() const override { return static_cast<uint8_t>(index_ + 1); }
  [[nodiscard]] int threads() const override { return 1; }
  [[nodiscard]] uint64_t free_memory() const override { return free_memory_; }
  [[nodiscard]] uint64_t spare_memory(uint64_t free) const override { return cuda::spare_bytes(free); }
  [[nodiscard]] uint64_t workspace_bytes(const Ops::Limits& limits) const override {
    return cuda::operator_bytes(limits);
  }

  Buffer allocate(size_t) override { fail(); }
  Buffer allocate_staging(size_t) override { fail(); }
  Buffer pin(std::span<const std::byte>) override { fail(); }
  void copy_in(std::byte*, const std::byte*, size_t) override { fail(); }
  void copy_out(std::byte*, const std::byte*, size_t) override { fail(); }
  void copy(std::byte*, const std::byte*, size_t) override { fail(); }
  std::unique_ptr<Ops> make_ops() override { fail(); }
  std::unique_ptr<Slots> make_slots(Ops&, int) override { fail(); }

 private:
  [[noreturn]] void fail() const { throw Error(fmt::format("cuda:{} is planned for, not here", index_)); }

  int index_;
  uint64_t free_memory_;
};

}  // namespace

std::unique_ptr<Device> plan_cuda_device(int index, uint64_t free_memory) {
  return std::make_unique<PlannedDevice>(index, free_memory);
}

}  // namespace rwkv
