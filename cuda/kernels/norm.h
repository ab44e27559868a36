// Layer norm of a row and token shift, by one block of norm_threads threads each. Sums have the same order
// wherever a row lies and whichever kernel asks, so results are the same bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/vector.h"
#include "cuda/shared.h"

namespace rwkv::cuda {

constexpr int norm_threads = 256;

/// layer_norm as kernels take it.
struct NormArguments {
  const float* x;
  float* out;
  const float *weight, *bias;
  int64_t x_stride, out_stride;
  int width, padding = 0;  ///< what happens to be there might look like an address, which devices check
};

/// token_shift as kernels take it.
struct ShiftArguments {
  const float *x, *weight, *bias;
  float *state, *normalized;
  const float* mix[max_mixes];
  float* mixed[max_mixes];
  int64_t x_stride, normalized_stride, mixed_stride[max_mixes];
  int width, mixes;
  int64_t tokens;
};

inline NormArguments norm_arguments(const Tensor& out, const Tensor& x, const Norm& norm) {
  return {x.f32(),  out.f32(),  norm.weight.f32(),         norm.bias.f32(),
          x.stride, out.stride, static_cast<int>(x.cols())};
}

inline ShiftArguments shift_arguments(const TokenShift& shift) {
  ShiftArguments s{};
  s.x = shift.x.f32();
  s.weight = shift.norm.weight.f32();
  s.bias = shift.norm.bias.f32();
  s.state = shift.state.f32();
  s.normalized = shift.normalized.f32();
  s.x_stride = shift.x.stride;
  s.normalized_stride = shift.normalized.stride;
  s.width = static_cast<int>(shift.x.cols());
  s.tokens = shift.x.rows();
  for (const Mix& m : shift.mixes) {
    s.mix[s.mixes] = m.mix.f32();
    s.mixed[s.mixes] = m.mixed.f32();
    s.mixed_stride[s.mixes++] = m.mixed.stride;
  }
  return s;
}

/// The sum over the block, for every thread. `parts` holds norm_threads / 32 numbers that nobody reads any
/// more.
__device__ inline float norm_block_sum(float value, float* parts) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < norm_threads / 32; i++) sum += parts[i];
  return sum;
}

/// What normalizes a row: (x - mean) * scale.
struct RowNorm {
  float mean, scale;
};

/// Two passes, so that a mean far from zero costs no digits; the second finds the row in the cache.
__device__ inline RowNorm row_norm(const float* x, int width) {
  constexpr int warps = norm_threads / 32;
  SHARED_ARRAY(float, parts, 2 * warps);  // the barrier of one sum protects the other's
  const int begin = static_cast<int>(threadIdx.x) * 4;
  float sum = 0;
#pragma unroll 4
  for (int i = begin; i < width; i += norm_threads * 4) {
    const float4 v = load4(x, i, width, 0.0f);
    sum += (v.x + v.y) + (v.z + v.w);
  }
  const auto count = static_cast<float>(width);
  const float mean = norm_block_sum(sum, parts) / count;
  float squares = 0;
#pragma unroll 4
  for (int i = begin; i < width; i += norm_threads * 4) {
    const float4 v = load4(x, i, width, mean);
    const float a = v.x - mean, b = v.y - mean, c = v.z - mean, d = v.w - mean;
    squares = fmaf(a, a, fmaf(b, b, fmaf(c, c, fmaf(d, d, squares))));
  }
  const float variance = norm_block_sum(squares, parts + warps) / count;
  return {mean, 1.0f / sqrtf(variance + layer_norm_epsilon)};
}

__device__ inline float4 normalize4(float4 x, RowNorm n, float4 weight, float4 bias) {
  return make_float4(
      fmaf((x.x - n.mean) * n.scale, weight.x, bias.x), fmaf((x.y - n.mean) * n.scale, weight.y, bias.y),
      fmaf((x.z - n.mean) * n.scale, weight.z, bias.z), fmaf((x.w - n.mean) * n.scale, weight.w, bias.w));
}

/// out[row] = normalize(x[row]); out may be x.
__device__ inline void layer_norm_row(const NormArguments& a, int64_t row) {
  const float* x = a.x + row * a.x_stride;
  float* out = a.out + row * a.out_stride;
  const RowNorm n = row_norm(x, a.width);
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * 4; i < a.width; i += norm_threads * 4) {
    const float4 weight = load4(a.weight, i, a.width, 0.0f), bias = load4(a.bias, i, a.width, 0.0f);
    store4(out, i, a.width, normalize4(load4(x, i, a.width, 0.0f), n, weight, bias));
  }
}

__device__ inline float4 mix4(float4 before, float4 now, float4 amount) {
  return make_float4(fmaf(before.x - now.x, amount.x, now.x), fmaf(before.y - now.y, amount.y, now.y),
                     fmaf(before.z - now.z, amount.z, now.z), fmaf(before.w - now.w, amount.w, now.w));
}

/// Tokens [begin, end). The state belongs to the block of token 0, which reads it and then replaces it by the
/// last token's row, so blocks need no order; other blocks normalize the row before theirs themselves.
__device__ inline void shift_tokens(const ShiftArguments& s, int64_t begin, int64_t end) {
  const int width = s.width;
  RowNorm before{}, last{};
  const float* last_x = s.x + (s.tokens - 1) * s.x_stride;
  if (begin > 0) before = row_norm(s.x + (begin - 1) * s.x_stride, width);
  if (begin == 0 && s.tokens > 1) last = row_norm(last_x, width);
  for (int64_t t = begin; t < end; t++) {
    const float* x = s.x + t * s.x_stride;
    const RowNorm now = row_norm(x, width);
    for (int i = static_cast<int>(threadIdx.x) * 4; i < width; i += norm_threads * 4) {
      const float4 weight = load4(s.weight, i, width, 0.0f), bias = load4(s.bias, i, width, 0.0f);
      const float4 n = normalize4(load4(x, i, width, 0.0f), now, weight, bias);
      float4 p;
      if (t == 0) {
        p = load4(s.state, i, width, 0.0f);
        store4(s.normalized, i, width, p);
        store4(s.state, i, width,
               s.tokens == 1 ? n : normalize4(load4(last_x, i, width, 0.0f), last, weight, bias));
      } else {
        p = normalize4(load4(x - s.x_stride, i, width, 0.0f), before, weight, bias);
      }
      store4(s.normalized + (t + 1) * s.normalized_stride, i, width, n);
      for (int m = 0; m < s.mixes; m++) {
        store4(s.mixed[m] + t * s.mixed_stride[m], i, width, mix4(p, n, load4(s.mix[m], i, width, 0.0f)));
      }
    }
    before = now;
  }
}

/// One token (s.tokens is 1), by one block.
__device__ inline void shift_token(const ShiftArguments& s) { shift_tokens(s, 0, 1); }

}  // namespace rwkv::cuda
