#include "cuda/kernels/kernels.h"
#include "cuda/launch.h"

namespace rwkv::cuda {
namespace {

constexpr unsigned transfer_threads = 256;

__global__ void __launch_bounds__(transfer_threads)
    read_pinned_kernel(unsigned* to, const unsigned* pinned, unsigned count) {
  const unsigned i = blockIdx.x * transfer_threads + threadIdx.x;
  if (i < count) to[i] = pinned[i];
}

}  // namespace

void read_pinned(std::byte* to, const std::byte* pinned, size_t bytes, cudaStream_t stream) {
  const auto count = static_cast<unsigned>(bytes / sizeof(unsigned));
  launch(read_pinned_kernel, (count + transfer_threads - 1) / transfer_threads, transfer_threads, 0, stream,
         reinterpret_cast<unsigned*>(to), reinterpret_cast<const unsigned*>(pinned), count);
}

}  // namespace rwkv::cuda
