// The two kinds of launches of matvec() in cuda/kernels/kernels.h.
#pragma once

#include "cuda/kernels/kernels.h"

namespace rwkv::cuda {

/// One product of one token with a matrix in input_rows.
void matvec_rows(const Product& product, const Tail& tail, const Workspace& workspace, cudaStream_t stream);

}  // namespace rwkv::cuda
