// An emulated device's cuBLAS is what a test gives it.
#include "cuda/cublas_emulated.h"

namespace rwkv::cuda {
namespace {

const CublasFunctions* given = nullptr;

}  // namespace

const CublasFunctions* cublas_functions() { return given; }
void give_cublas(const CublasFunctions* functions) { given = functions; }

}  // namespace rwkv::cuda
