// Slots of a CUDA device: a stream of copies beside the queue of operators, and events both ways.
#pragma once

#include <vector>

#include "cuda/ops.h"
#include "cuda/queue.h"
#include "ops/device.h"

namespace rwkv::cuda {

class CudaSlots final : public Slots {
 public:
  CudaSlots(CudaOps& ops, int slots);

  void fill(int slot, std::byte* to, const std::byte* from, size_t bytes) override;
  void acquire(int slot) override;
  void release(int slot) override;

 private:
  struct Slot {
    Event filled, free;
  };

  CudaOps& ops_;
  std::vector<Slot> slots_;
  Queue copies_;  // goes first: it waits for the copies
};

}  // namespace rwkv::cuda
