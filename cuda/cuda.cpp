#include "cuda/cuda.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include "core/error.h"
#include "cuda/check.h"
#include "cuda/memory.h"
#include "cuda/ops.h"
#include "cuda/simulation.h"
#include "cuda/slots.h"
#include "cuda/workspace.h"

namespace rwkv::cuda {
namespace {

// Compute capability, major and minor in one number: what the kernels are compiled for, and newer ones.
constexpr int oldest_architecture = 75;

CudaOps& cuda_ops(Ops& ops) {
  auto* own = dynamic_cast<CudaOps*>(&ops);
  if (own == nullptr) throw Error("slots of a CUDA device are for the operators of a CUDA device");
  return *own;
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, std::string description) : index_(index), description_(std::move(description)) {}

  [[nodiscard]] std::string description() const override { return description_; }
  [[nodiscard]] uint8_t id() const override { return static_cast<uint8_t>(index_ + 1); }
  [[nodiscard]] int threads() const override { return 1; }
  [[nodiscard]] uint64_t free_memory() const override { return cuda::free_memory(index_); }
  [[nodiscard]] uint64_t spare_memory(uint64_t free) const override {
    return simulated() ? 0 : spare_bytes(free);
  }
  Buffer allocate(size_t bytes) override { return cuda::allocate(index_, bytes); }
  Buffer allocate_staging(size_t bytes) override { return allocate_pinned(index_, bytes); }
  Buffer pin(std::span<const std::byte> bytes) override { return cuda::pin(index_, bytes); }
  void copy_in(std::byte* device, const std::byte* host, size_t bytes) override {
    copy_and_wait(index_, device, host, bytes, cudaMemcpyHostToDevice);
  }
  void copy_out(std::byte* host, const std::byte* device, size_t bytes) override {
    copy_and_wait(index_, host, device, bytes, cudaMemcpyDeviceToHost);
  }
  void copy(std::byte* to, const std::byte* from, size_t bytes) override {
    copy_and_wait(index_, to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  [[nodiscard]] uint64_t workspace_bytes(const Ops::Limits& limits) const override {
    return cuda::operator_bytes(limits);
  }
  std::unique_ptr<Ops> make_ops() override { return std::make_unique<CudaOps>(index_); }
  std::unique_ptr<Slots> make_slots(Ops& ops, int slots) override {
    return std::make_unique<CudaSlots>(cuda_ops(ops), slots);
  }

 private:
  int index_;
  std::string description_;
};

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string missing() {
  int count = 0;
  try {
    check(cudaGetDeviceCount(&count), "find a device");
    if (count == 0) check(cudaErrorNoDevice, "find a device");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::unique_ptr<Device> open(int index) {
  const std::string wrong = missing();
  if (!wrong.empty()) throw Error(wrong);
  const int count = device_count();
  if (index < 0 || index >= count) {
    throw Error(fmt::format("cuda:{}: there is no such device; this machine has {}", index,
                            count == 1 ? "one, cuda:0" : fmt::format("cuda:0 to cuda:{}", count - 1)));
  }
  set_device(index);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "ask what the device is");
  if (properties.major * 10 + properties.minor < oldest_architecture) {
    throw Error(
        fmt::format("cuda:{} ({}) has compute capability {}.{}, but {}.{} or newer is needed; use "
                    "another device or a cpu strategy",
                    index, properties.name, properties.major, properties.minor, oldest_architecture / 10,
                    oldest_architecture % 10));
  }
  return std::make_unique<CudaDevice>(index,
                                      fmt::format("cuda:{} ({}, {:.1f} GB)", index, properties.name,
                                                  static_cast<double>(properties.totalGlobalMem) / 1e9));
}

}  // namespace rwkv::cuda
