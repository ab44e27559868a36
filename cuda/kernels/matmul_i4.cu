// Products of chunks with int4 weights.
#include "cuda/kernels/matmul_tile.h"

namespace rwkv::cuda {

template <>
void multiply_chunk<DType::i4>(Layout layout, Tile tile, const ChunkProducts& products, unsigned tiles,
                               cudaStream_t stream) {
  layout == Layout::input_rows ? launch_shape<DType::i4, true>(tile, products, tiles, stream)
                               : launch_shape<DType::i4, false>(tile, products, tiles, stream);
}

}  // namespace rwkv::cuda
