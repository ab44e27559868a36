// Layer norm and token shift of any number of tokens: one launch each.
//
// Bytes of token_shift for a row of D numbers and M mixes: 4D read, 4D (1 + M) written, vectors aside, and
// about 10 + 4M operations for each number: memory is the limit, 8 * 4D bytes for RWKV-7's six mixes. Rows
// are read again (for the variance, the output, the token that follows) from the caches.
#include "cuda/kernels/norm.h"

#include <algorithm>

#include "cuda/launch.h"

namespace rwkv::cuda {
namespace {

__global__ void __launch_bounds__(norm_threads) layer_norm_kernel(NormArguments a) {
  layer_norm_row(a, blockIdx.x);
}

__global__ void __launch_bounds__(norm_threads) token_shift_kernel(ShiftArguments s, int rows) {
  const int begin = static_cast<int>(blockIdx.x) * rows;
  shift_tokens(s, begin, min(begin + rows, s.tokens));
}

}  // namespace

void layer_norm(const Tensor& out, const Tensor& x, const Norm& norm, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(x.rows());
  launch(layer_norm_kernel, rows, norm_threads, 0, stream, norm_arguments(out, x, norm));
}

void token_shift(const TokenShift& shift, cudaStream_t stream) {
  // Each block computes the sums of one row more than it has; few tokens want many blocks all the same.
  const int64_t tokens = shift.x.rows(), rows = std::clamp<int64_t>(tokens / 512, 1, 8);
  const auto blocks = static_cast<unsigned>((tokens + rows - 1) / rows);
  launch(token_shift_kernel, blocks, norm_threads, 0, stream, shift_arguments(shift), static_cast<int>(rows));
}

}  // namespace rwkv::cuda
