// Records of repeated work: CUDA graphs by capture of the queue.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cuda/queue.h"

namespace rwkv::cuda {

class Records {
 public:
  explicit Records(const Queue& queue) : queue_(queue) {}

  /// Runs the work plainly when its key is new, records it the second time, and from then on runs the
  /// record. What cannot be recorded is always run plainly. Throws Error.
  void run(std::span<const void* const> key, const std::function<void()>& work);
  /// Forgets everything, when the queue's work is done.
  void clear();

 private:
  struct Destroy {
    void operator()(cudaGraph_t graph) const;
    void operator()(cudaGraphExec_t executable) const;
  };
  using Graph = std::unique_ptr<CUgraph_st, Destroy>;
  using Executable = std::unique_ptr<CUgraphExec_st, Destroy>;

  struct Record {
    std::vector<const void*> key;
    uint64_t last_run = 0;  // 0: unused
    bool refused = false;
    Executable executable;
  };

  Record* find(std::span<const void* const> key);
  /// Gives the record that was not run for the longest time to this key.
  void replace(std::span<const void* const> key);
  Executable capture(const std::function<void()>& work) const;

  const Queue& queue_;
  uint64_t runs_ = 0;
  std::array<Record, 8> records_;
};

}  // namespace rwkv::cuda
