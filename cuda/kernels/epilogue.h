// What follows a matrix product (Epilogue of ops/ops.h), for one output at a time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/ops.h"

namespace rwkv::cuda {

// As accurate as expf and tanhf are (2 ulp at most), over the whole range; NaN stays NaN.
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }
__device__ inline float relu_squared(float x) {
  const float positive = x < 0.0f ? 0.0f : x;
  return positive * positive;
}

/// Whether activate() wants the bias.
inline bool has_bias(Epilogue epilogue) {
  return epilogue == Epilogue::biased_sigmoid || epilogue == Epilogue::decay6 || epilogue == Epilogue::decay7;
}

/// What an epilogue without operands, or with none but the bias, makes of y, which includes the bias.
__device__ inline float activate(Epilogue epilogue, float y) {
  switch (epilogue) {
    case Epilogue::tanh:
      return tanhf(y);
    case Epilogue::sigmoid:
    case Epilogue::biased_sigmoid:
      return sigmoid(y);
    case Epilogue::silu:
      return silu(y);
    case Epilogue::relu_squared:
      return relu_squared(y);
    case Epilogue::decay6:
      return expf(-expf(y));
    case Epilogue::decay7:
      return expf(-0.606531f * sigmoid(y));
    default:
      return y;
  }
}

/// Where a product's results go and what its epilogue reads, as kernels take it. Rows are `stride` elements
/// apart.
struct EpilogueArguments {
  float* out;
  const float *bias, *a, *b;
  int64_t out_stride, a_stride, b_stride;
  Epilogue epilogue;
  uint8_t padding[7] = {};  ///< what happens to be there might look like an address, which devices check
};

inline EpilogueArguments epilogue_arguments(const Product& p) {
  return {p.out.f32(), p.bias.f32(), p.a.f32(), p.b.f32(), p.out.stride, p.a.stride, p.b.stride, p.epilogue};
}

/// What becomes of y, the product for one token and output. Reads `out` where the epilogue adds to it, but
/// stores nothing.
__device__ inline float apply_epilogue(const EpilogueArguments& e, float y, int64_t token, int output) {
  switch (e.epilogue) {
    case Epilogue::add:
      return e.out[token * e.out_stride + output] + y;
    case Epilogue::gated_add:
      return fmaf(e.a[token * e.a_stride + output], y, e.out[token * e.out_stride + output]);
    case Epilogue::biased_mix: {
      const float from = e.a[token * e.a_stride + output], to = e.b[token * e.b_stride + output];
      return fmaf(to - from, e.bias[output] + y, from);
    }
    case Epilogue::biased_sigmoid:
    case Epilogue::decay6:
    case Epilogue::decay7:
      return activate(e.epilogue, e.bias[output] + y);
    default:
      return activate(e.epilogue, y);
  }
}

/// The same, stored.
__device__ inline void store_result(const EpilogueArguments& e, float y, int64_t token, int output) {
  e.out[token * e.out_stride + output] = apply_epilogue(e, y, token, output);
}

}  // namespace rwkv::cuda
