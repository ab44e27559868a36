// Products of chunks with fp32 weights.
#include "cuda/kernels/matmul_tile.h"

namespace rwkv::cuda {

template <>
void multiply_chunk<DType::f32>(Layout layout, Tile tile, const ChunkProducts& products, unsigned tiles,
                                cudaStream_t stream) {
  layout == Layout::input_rows ? launch_shape<DType::f32, true>(tile, products, tiles, stream)
                               : launch_shape<DType::f32, false>(tile, products, tiles, stream);
}

}  // namespace rwkv::cuda
