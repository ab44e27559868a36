// Products of chunks with bf16 weights.
#include "cuda/kernels/matmul_tile.h"

namespace rwkv::cuda {

template <>
void multiply_chunk<DType::bf16>(Layout layout, Tile tile, const ChunkProducts& products, unsigned tiles,
                                 cudaStream_t stream) {
  layout == Layout::input_rows ? launch_shape<DType::bf16, true>(tile, products, tiles, stream)
                               : launch_shape<DType::bf16, false>(tile, products, tiles, stream);
}

}  // namespace rwkv::cuda
