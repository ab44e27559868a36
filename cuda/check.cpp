#include "cuda/check.h"

#include <fmt/format.h>

#include <string>

#include "core/error.h"

namespace rwkv::cuda {
namespace {

const char* advice(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
      return "if there is an NVIDIA GPU, install its driver, or a newer one";
    case cudaErrorNoDevice:
      return "see what nvidia-smi and CUDA_VISIBLE_DEVICES say, or use a cpu strategy";
    case cudaErrorMemoryAllocation:
      return "close other programs on the device, or keep fewer layers there (*N+)";
    default:
      return "start the program again; if that does not help, see what nvidia-smi says, or use a cpu "
             "strategy";
  }
}

std::string current_device() {
  int device = 0;
  if (cudaGetDevice(&device) == cudaSuccess) return fmt::format("cuda:{}", device);
  cudaGetLastError();
  return "cuda";
}

}  // namespace

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  cudaGetLastError();
  throw Error(fmt::format("{}: cannot {}: {} ({}); {}", current_device(), what, cudaGetErrorString(result),
                          cudaGetErrorName(result), advice(result)));
}

}  // namespace rwkv::cuda
