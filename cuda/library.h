// Whether a library is faster at long chunks than matmul's own kernels.
#pragma once

#include <memory>

#include "core/buffer.h"
#include "cuda/cublas.h"
#include "cuda/kernels/kernels.h"
#include "cuda/queue.h"

namespace rwkv::cuda {

/// cuBLAS for one queue, if it is there, if there is memory to spare, and if a product of the largest size
/// under the limits is right with it and takes at most a share of the time. Its sums have another order, for
/// which the number of tokens matters.
class FasterLibrary {
 public:
  explicit FasterLibrary(double share_of_time = 0.9) : share_of_time_(share_of_time) {}

  /// Looks once, when the limits allow chunks for which matmul would ask. Takes memory and time: 0.1 seconds
  /// and what the library needs to load. Puts what it found into the workspace, whose operands are there;
  /// never throws because there is none.
  void look(const Queue& queue, const Ops::Limits& limits, Workspace& workspace);

 private:
  double share_of_time_;
  bool looked_ = false;
  Buffer memory_, sums_;
  std::unique_ptr<Cublas> cublas_;
};

}  // namespace rwkv::cuda
