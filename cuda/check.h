// Errors of the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

namespace rwkv::cuda {

/// Throws Error with what could not be done and the runtime's text, unless `result` is cudaSuccess. Takes the
/// error back from the runtime, so that a later call doesn't meet it again.
void check(cudaError_t result, const char* what);

}  // namespace rwkv::cuda
