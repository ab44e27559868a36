// What the last block of a launch does when all blocks are done: see Tail in cuda/kernels/kernels.h.
#pragma once

#include <cuda_runtime.h>

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/norm.h"
#include "cuda/shared.h"

namespace rwkv::cuda {

/// Tail as kernels take it; what has no x is not to be done.
struct TailArguments {
  ShiftArguments shift;
  NormArguments norm;

  [[nodiscard]] bool any() const { return shift.x != nullptr || norm.x != nullptr; }
};

inline TailArguments tail_arguments(const Tail& tail) {
  TailArguments t{};
  if (tail.shift != nullptr) t.shift = shift_arguments(*tail.shift);
  if (tail.norm != nullptr) t.norm = norm_arguments(tail.norm->out, tail.norm->x, tail.norm->norm);
  return t;
}

/// First thing in a launch, by a block of norm_threads threads: fetches what the tail will read.
__device__ inline void prefetch_tail(const TailArguments& t) {
  if (t.shift.x != nullptr) prefetch_shift(t.shift);
  if (t.norm.x != nullptr) prefetch_norm(t.norm);
}

/// Whether the calling block is the last of `blocks` to come here; then it sees what the others wrote before,
/// and the counter is zero again. All threads of the block call.
__device__ inline bool last_to_arrive(unsigned* counter, unsigned blocks) {
  SHARED_ARRAY(unsigned, last, 1);
  __syncthreads();  // the block has written
  if (threadIdx.x == 0) {
    __threadfence();
    last[0] = atomicAdd(counter, 1u) == blocks - 1 ? 1 : 0;
    if (last[0] != 0) atomicExch(counter, 0u);
    __threadfence();
  }
  __syncthreads();
  return last[0] != 0;
}

/// By a block of norm_threads threads.
__device__ inline void run_tail(const TailArguments& t) {
  if (t.shift.x != nullptr) shift_token(t.shift);
  if (t.norm.x != nullptr) layer_norm_row(t.norm, 0);
}

}  // namespace rwkv::cuda
