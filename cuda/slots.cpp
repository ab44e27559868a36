#include "cuda/slots.h"

#include "cuda/memory.h"

namespace rwkv::cuda {

CudaSlots::CudaSlots(CudaOps& ops, int slots) : ops_(ops), copies_(ops.device()) {
  for (int i = 0; i < slots; i++) slots_.push_back({Event(ops.device()), Event(ops.device())});
}

void CudaSlots::fill(int slot, std::byte* to, const std::byte* from, size_t bytes) {
  set_device(ops_.device());
  const Slot& s = slots_[static_cast<size_t>(slot)];
  copies_.wait(s.free);
  copies_.copy(to, from, bytes, cudaMemcpyHostToDevice);
  copies_.record(s.filled);
}

void CudaSlots::acquire(int slot) { ops_.queue().wait(slots_[static_cast<size_t>(slot)].filled); }

void CudaSlots::release(int slot) { ops_.queue().record(slots_[static_cast<size_t>(slot)].free); }

}  // namespace rwkv::cuda
