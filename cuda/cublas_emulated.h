// For tests on emulated devices, which have no cuBLAS of their own.
#pragma once

#include "cuda/cublas.h"

namespace rwkv::cuda {

/// What cublas_functions() gives from now on.
void give_cublas(const CublasFunctions* functions);

}  // namespace rwkv::cuda
