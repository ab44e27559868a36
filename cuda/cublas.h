// cuBLAS, where it is installed: found when the program runs, so nothing links it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "cuda/kernels/kernels.h"

namespace rwkv::cuda {

/// The functions of the library that are used, with its types spelled out. They return 0 for success.
struct CublasFunctions {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*set_stream)(void* handle, cudaStream_t stream);
  int (*set_workspace)(void* handle, void* memory, size_t bytes);
  /// c = alpha op(a) op(b) + beta c; matrices are stored by columns.
  int (*gemm)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
              const void* a, int a_type, int lda, const void* b, int b_type, int ldb, const void* beta,
              void* c, int c_type, int ldc, int compute_type, int algorithm);
};

/// Null when the library is not there or does not work. Loads it at the first call.
const CublasFunctions* cublas_functions();

/// Products in one stream of the device that is set. The workspace stays as long as this does.
class Cublas final : public ProductLibrary {
 public:
  /// Throws Error.
  Cublas(const CublasFunctions& functions, cudaStream_t stream, void* workspace, size_t bytes);
  ~Cublas() override;
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  bool multiply(const LibraryProduct& product) override;

 private:
  const CublasFunctions& functions_;
  void* handle_ = nullptr;
};

}  // namespace rwkv::cuda
