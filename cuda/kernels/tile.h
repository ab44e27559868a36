// Shapes of the tiles that blocks compute in products of chunks. A sum has the same order, so the same bits,
// in all of them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "cuda/kernels/kernels.h"

namespace rwkv::cuda {

/// A block computes so many outputs of so many tokens. In square and large tiles each warp has a part of the
/// tile; in narrow ones all of it, for a part of the inputs.
enum class Tile { narrow, square, large };

constexpr int narrow_outputs = 16, narrow_tokens = 16, square_size = 64, large_size = 128;

/// What matmul takes for products with weights of one type and layout, which have so many outputs.
Tile choose_tile(std::span<const int> outputs, int tokens);

/// matmul with tiles of one shape for all products.
void matmul(std::span<const Product> products, Tile tile, const Workspace& workspace, cudaStream_t stream);

}  // namespace rwkv::cuda
