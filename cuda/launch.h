// Kernel launches for both compilers: <<<>>> is not C++.
#pragma once

#include <cuda_runtime.h>

#include "cuda/check.h"

namespace rwkv::cuda {

/// Queues a kernel; nothing for an empty grid. Throws Error.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            const A&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), "launch a kernel");
}

}  // namespace rwkv::cuda
