#include "cuda/cublas.h"

#include "core/error.h"

namespace rwkv::cuda {
namespace {

// Numbers of the library's and the runtime's enumerations.
constexpr int as_it_is = 0, transposed = 1;                // cublasOperation_t
constexpr int real_f32 = 0, real_f16 = 2, real_bf16 = 14;  // cudaDataType_t
constexpr int compute_f32 = 68;                            // cublasComputeType_t
constexpr int default_algorithm = -1;                      // cublasGemmAlgo_t

}  // namespace

// A new stream takes the workspace from the handle, so it comes first.
Cublas::Cublas(const CublasFunctions& functions, cudaStream_t stream, void* workspace, size_t bytes)
    : functions_(functions) {
  if (functions.create(&handle_) != 0) throw Error("cuda: cuBLAS cannot be used");
  if (functions.set_stream(handle_, stream) != 0 || functions.set_workspace(handle_, workspace, bytes) != 0) {
    functions.destroy(handle_);
    throw Error("cuda: cuBLAS cannot be used");
  }
}

Cublas::~Cublas() { functions_.destroy(handle_); }

// Stored by columns, weights are [weight_stride, outputs], x is [x_stride, tokens], y is [outputs, tokens].
bool Cublas::multiply(const LibraryProduct& p) {
  const float one = 1, zero = 0;
  const int type = p.dtype == DType::bf16 ? real_bf16 : real_f16;
  return functions_.gemm(handle_, transposed, as_it_is, p.outputs, p.tokens, p.inputs, &one, p.weight, type,
                         p.weight_stride, p.x, type, p.x_stride, &zero, p.y, real_f32, p.outputs, compute_f32,
                         default_algorithm) == 0;
}

}  // namespace rwkv::cuda
