// Layer norm of a row and token shift, by one block of norm_threads threads each. Sums have the same order
// wherever a row lies and whichever kernel asks, so results are the same bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/intrinsics.h"
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
  int width, mixes, tokens;
  int aligned;  ///< whether all rows are, to 16 bytes, and can be read and written by fours
};

inline NormArguments norm_arguments(const Tensor& out, const Tensor& x, const Norm& norm) {
  return {x.f32(),  out.f32(),  norm.weight.f32(),         norm.bias.f32(),
          x.stride, out.stride, static_cast<int>(x.cols())};
}

inline ShiftArguments shift_arguments(const TokenShift& shift) {
  ShiftArguments s{};
  bool aligned = shift.x.cols() % 4 == 0;
  auto rows = [&aligned](const Tensor& t) {
    aligned = aligned && reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && (t.rank < 2 || t.stride % 4 == 0);
    return t.f32();
  };
  s.x = rows(shift.x);
  s.weight = rows(shift.norm.weight);
  s.bias = rows(shift.norm.bias);
  s.state = rows(shift.state);
  s.normalized = rows(shift.normalized);
  s.x_stride = shift.x.stride;
  s.normalized_stride = shift.normalized.stride;
  s.width = static_cast<int>(shift.x.cols());
  s.tokens = static_cast<int>(shift.x.rows());
  for (const Mix& m : shift.mixes) {
    s.mix[s.mixes] = rows(m.mix);
    s.mixed[s.mixes] = rows(m.mixed);
    s.mixed_stride[s.mixes++] = m.mixed.stride;
  }
  s.aligned = aligned ? 1 : 0;
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
  const int first = static_cast<int>(threadIdx.x) * 4;
  float4 weight{}, bias{};
  auto load = [&](int i) {  // ahead, since loads cannot pass the stores, which might change what they read
    if (i < a.width) weight = load4(a.weight, i, a.width, 0.0f);
    if (i < a.width) bias = load4(a.bias, i, a.width, 0.0f);
  };
  load(first);
  const RowNorm n = row_norm(x, a.width);
  for (int i = first; i < a.width; i += norm_threads * 4) {
    const float4 result = normalize4(load4(x, i, a.width, 0.0f), n, weight, bias);
    load(i + norm_threads * 4);
    store4(out, i, a.width, result);
  }
}

__device__ inline float4 mix4(float4 before, float4 now, float4 amount) {
  return make_float4(fmaf(before.x - now.x, amount.x, now.x), fmaf(before.y - now.y, amount.y, now.y),
                     fmaf(before.z - now.z, amount.z, now.z), fmaf(before.w - now.w, amount.w, now.w));
}

template <bool aligned>
__device__ inline float4 load_row4(const float* row, int i, int width) {
  if constexpr (aligned) return *reinterpret_cast<const float4*>(row + i);
  return load4(row, i, width, 0.0f);
}
template <bool aligned>
__device__ inline void store_row4(float* row, int i, int width, float4 v) {
  if constexpr (aligned) {
    *reinterpret_cast<float4*>(row + i) = v;
  } else {
    store4(row, i, width, v);
  }
}

/// Four elements of token t; `before` and `last` normalize the token before and the last one. What is aligned
/// is loaded together: later loads could not pass the stores, which might change what they read.
template <bool aligned>
__device__ inline void shift4(const ShiftArguments& s, int t, int i, RowNorm now, RowNorm before,
                              RowNorm last) {
  const int width = s.width;
  const float* x = s.x + t * s.x_stride;
  float4 mix[max_mixes];
#pragma unroll
  for (int m = 0; m < max_mixes; m++) {
    if (aligned && m < s.mixes) mix[m] = load_row4<aligned>(s.mix[m], i, width);
  }
  float4 p = load_row4<aligned>(t == 0 ? s.state : x - s.x_stride, i, width);
  const float4 weight = load_row4<aligned>(s.weight, i, width), bias = load_row4<aligned>(s.bias, i, width);
  const float4 n = normalize4(load_row4<aligned>(x, i, width), now, weight, bias);
  if (t == 0) {
    float4 state = n;
    if (s.tokens > 1)
      state = normalize4(load_row4<aligned>(s.x + (s.tokens - 1) * s.x_stride, i, width), last, weight, bias);
    store_row4<aligned>(s.normalized, i, width, p);
    store_row4<aligned>(s.state, i, width, state);
  } else {
    p = normalize4(p, before, weight, bias);
  }
  store_row4<aligned>(s.normalized + (t + 1) * s.normalized_stride, i, width, n);
#pragma unroll
  for (int m = 0; m < max_mixes; m++) {
    if (m >= s.mixes) break;
    if (!aligned) mix[m] = load_row4<aligned>(s.mix[m], i, width);
    store_row4<aligned>(s.mixed[m] + t * s.mixed_stride[m], i, width, mix4(p, n, mix[m]));
  }
}

/// Tokens [begin, end). The state belongs to the block of token 0, which reads it and then replaces it by the
/// last token's row, so blocks need no order; other blocks normalize the row before theirs themselves.
__device__ inline void shift_tokens(const ShiftArguments& s, int begin, int end) {
  const int first = static_cast<int>(threadIdx.x) * 4, step = norm_threads * 4;
  RowNorm before{}, last{};
  if (begin > 0) before = row_norm(s.x + (begin - 1) * s.x_stride, s.width);
  if (begin == 0 && s.tokens > 1) last = row_norm(s.x + (s.tokens - 1) * s.x_stride, s.width);
  for (int t = begin; t < end; t++) {
    const RowNorm now = row_norm(s.x + t * s.x_stride, s.width);
    if (s.aligned != 0) {
#pragma unroll 1
      for (int i = first; i < s.width; i += step) shift4<true>(s, t, i, now, before, last);
    } else {
#pragma unroll 1
      for (int i = first; i < s.width; i += step) shift4<false>(s, t, i, now, before, last);
    }
    before = now;
  }
}

/// Lets a vector of the model come nearer, by one block, while there is other work to do.
__device__ inline void prefetch_vector(const float* vector, int width) {
  for (int i = static_cast<int>(threadIdx.x) * 32; i < width; i += norm_threads * 32) prefetch(vector + i);
}

/// What shift_token reads beside x.
__device__ inline void prefetch_shift(const ShiftArguments& s) {
  prefetch_vector(s.state, s.width);
  prefetch_vector(s.weight, s.width);
  prefetch_vector(s.bias, s.width);
  for (int m = 0; m < s.mixes; m++) prefetch_vector(s.mix[m], s.width);
}

/// What layer_norm_row reads beside x.
__device__ inline void prefetch_norm(const NormArguments& a) {
  prefetch_vector(a.weight, a.width);
  prefetch_vector(a.bias, a.width);
}

/// One token (s.tokens is 1), by one block.
__device__ inline void shift_token(const ShiftArguments& s) { shift_tokens(s, 0, 1); }

}  // namespace rwkv::cuda
