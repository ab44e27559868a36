// RWKV-4's recurrence. Each thread takes one channel through the tokens of a chunk.
//
// For a token and a channel: 16 bytes (r, k, v, out), and four exponentials, a division and a dozen other
// operations, some 80 instructions. With a warp for each multiprocessor, as 4096 channels have, the limit is
// the chain from a token's state to the next one's, about 100 cycles; loads run ahead of it.
#include "cuda/kernels/kernels.h"
#include "cuda/launch.h"

namespace rwkv::cuda {
namespace {

constexpr int channels_of_block = 32;  // one warp, so that the channels reach all multiprocessors
constexpr int ahead = 4;               // tokens that are loaded together

struct Arguments4 {
  const float *r, *k, *v, *decay, *first;
  float *state, *out;
  int64_t r_stride, k_stride, v_stride, out_stride, state_stride;
  int tokens, width;
};

struct Inputs4 {
  float r[ahead], k[ahead], v[ahead];
};

__device__ void load_inputs(const Arguments4& a, int channel, int64_t first, Inputs4& in) {
#pragma unroll
  for (int i = 0; i < ahead; i++) {
    if (first + i >= a.tokens) break;
    in.r[i] = a.r[(first + i) * a.r_stride + channel];
    in.k[i] = a.k[(first + i) * a.k_stride + channel];
    in.v[i] = a.v[(first + i) * a.v_stride + channel];
  }
}

/// NaN when one of them is.
__device__ float larger(float a, float b) { return a > b || a != a ? a : b; }

/// aa and bb are scaled by exp(-pp).
struct State4 {
  float aa, bb, pp;

  [[nodiscard]] __device__ float output(float first, float k, float v) const {
    const float bonus = first + k, q = larger(pp, bonus);
    const float e1 = expf(pp - q), e2 = expf(bonus - q);
    return fmaf(e1, aa, e2 * v) / fmaf(e1, bb, e2);
  }
  __device__ void add(float decay, float k, float v) {
    const float decayed = decay + pp;
    pp = larger(decayed, k);
    const float e1 = expf(decayed - pp), e2 = expf(k - pp);
    aa = fmaf(e1, aa, e2 * v);
    bb = fmaf(e1, bb, e2);
  }
};

__global__ void __launch_bounds__(channels_of_block) wkv4_kernel(Arguments4 a) {
  const int channel = static_cast<int>(blockIdx.x) * channels_of_block + static_cast<int>(threadIdx.x);
  if (channel >= a.width) return;
  float* state = a.state + channel;
  State4 s = {state[0], state[a.state_stride], state[2 * a.state_stride]};
  const float decay = a.decay[channel], first = a.first[channel];
  Inputs4 next{};
  load_inputs(a, channel, 0, next);
  for (int t = 0; t < a.tokens; t += ahead) {
    const Inputs4 in = next;
    load_inputs(a, channel, t + ahead, next);
#pragma unroll
    for (int i = 0; i < ahead; i++) {
      if (t + i >= a.tokens) break;
      a.out[static_cast<int64_t>(t + i) * a.out_stride + channel] =
          in.r[i] * s.output(first, in.k[i], in.v[i]);
      s.add(decay, in.k[i], in.v[i]);
    }
  }
  state[0] = s.aa;
  state[a.state_stride] = s.bb;
  state[2 * a.state_stride] = s.pp;
}

}  // namespace

void wkv4(const Wkv4& w, cudaStream_t stream) {
  Arguments4 a{};
  a.r = w.r.f32();
  a.k = w.k.f32();
  a.v = w.v.f32();
  a.decay = w.decay.f32();
  a.first = w.first.f32();
  a.state = w.state.f32();
  a.out = w.out.f32();
  a.r_stride = w.r.stride;
  a.k_stride = w.k.stride;
  a.v_stride = w.v.stride;
  a.out_stride = w.out.stride;
  a.state_stride = w.state.stride;
  a.tokens = static_cast<int>(w.r.rows());
  a.width = static_cast<int>(w.r.cols());
  const auto blocks = static_cast<unsigned>((a.width + channels_of_block - 1) / channels_of_block);
  launch(wkv4_kernel, blocks, channels_of_block, 0, stream, a);
}

}  // namespace rwkv::cuda
