// Work on one token's row: gathering an embedding, normalizing, mixing. Bound by the cache, not by memory.
#include <cmath>
#include <cstring>

#include "core/half.h"
#include "cpu/kernels/kernels.h"
// Last: it selects the instruction set.
#include "cpu/kernels/math.h"

namespace rwkv::cpu::ISA {

void embed(float* out, const std::byte* row, DType dtype, int64_t width) {
  if (dtype == DType::f32) {
    std::memcpy(out, row, static_cast<size_t>(width) * 4);
    return;
  }
  int64_t i = 0;
  for (; i + 16 <= width; i += 16) {
    store(out + i, dtype == DType::f16 ? load_f16(row + i * 2) : load_bf16(row + i * 2));
  }
  for (; i < width; i++) {
    uint16_t bits;
    std::memcpy(&bits, row + i * 2, 2);
    out[i] = dtype == DType::f16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
  }
}

void normalize(float* out, const float* x, const Norm& norm, int64_t width) {
  Vec total = set1(0);
  for_lanes(width, [&](int64_t i, auto get, auto) { total = add(total, get(x + i)); });
  float mean = sum(total) / static_cast<float>(width);
  Vec squares = set1(0);
  int64_t whole = width / 16 * 16;
  for (int64_t i = 0; i < whole; i += 16) {
    Vec d = sub(load(x + i), set1(mean));
    squares = fma(d, d, squares);
  }
  float variance = sum(squares);
  for (int64_t i = whole; i < width; i++) variance += (x[i] - mean) * (x[i] - mean);
  variance /= static_cast<float>(width);
  Vec scale = set1(1.0f / std::sqrt(variance + layer_norm_epsilon));
  const float *weight = norm.weight.f32(), *bias = norm.bias.f32();
  for_lanes(width, [&](int64_t i, auto get, auto put) {
    Vec n = mul(sub(get(x + i), set1(mean)), scale);
    put(out + i, fma(n, get(weight + i), get(bias + i)));
  });
}

void mix(const TokenShift& shift, int64_t t) {
  const float *before = shift.normalized.row(t), *now = shift.normalized.row(t + 1);
  for (const Mix& m : shift.mixes) {
    const float* amount = m.mix.f32();
    float* out = m.mixed.row(t);
    for_lanes(shift.x.cols(), [&](int64_t i, auto get, auto put) {
      Vec n = get(now + i);
      put(out + i, fma(sub(get(before + i), n), get(amount + i), n));
    });
  }
}

}  // namespace rwkv::cpu::ISA
