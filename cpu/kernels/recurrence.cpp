// The recurrences of time mixing. Lanes are value channels, so that no sum runs across lanes; a head's state
// (N * N * 4 bytes, 16 KiB for N = 64) stays in the first-level cache while the tokens of a chunk pass.
#include <algorithm>
#include <cmath>

#include "cpu/kernels/kernels.h"
// Last: it selects the instruction set.
#include "cpu/kernels/math.h"

namespace rwkv::cpu::ISA {
namespace {

/// out[0..n) = normalize(y) with the group norm's epsilon.
void group_norm(float* out, const float* y, const Norm& norm, int64_t channel, int64_t n) {
  float mean = 0, variance = 0;
  for (int64_t i = 0; i < n; i++) mean += y[i];
  mean /= static_cast<float>(n);
  for (int64_t i = 0; i < n; i++) variance += (y[i] - mean) * (y[i] - mean);
  variance /= static_cast<float>(n);
  float scale = 1.0f / std::sqrt(variance + group_norm_epsilon);
  const float *weight = norm.weight.f32() + channel, *bias = norm.bias.f32() + channel;
  for_lanes(n, [&](int64_t i, auto get, auto put) {
    put(out + i, fma(mul(sub(get(y + i), set1(mean)), set1(scale)), get(weight + i), get(bias + i)));
  });
}

}  // namespace

void wkv4(const Wkv4& w, Range channels) {
  const float *decay = w.decay.f32(), *first = w.first.f32();
  float *aa = w.state.row(0), *bb = w.state.row(1), *pp = w.state.row(2);
  for (int64_t t = 0; t < w.r.rows(); t++) {
    const float *r = w.r.row(t), *k = w.k.row(t), *v = w.v.row(t);
    float* out = w.out.row(t);
    for_lanes(channels.end - channels.begin, [&](int64_t offset, auto get, auto put) {
      int64_t i = channels.begin + offset;
      Vec a = get(aa + i), b = get(bb + i), p = get(pp + i), key = get(k + i), value = get(v + i);
      Vec bonus = add(get(first + i), key);
      Vec q = max_of(p, bonus);
      Vec e1 = exp(sub(p, q)), e2 = exp(sub(bonus, q));
      Vec y = div(fma(e1, a, mul(e2, value)), fma(e1, b, e2));
      put(out + i, mul(get(r + i), y));
      Vec decayed = add(get(decay + i), p);
      q = max_of(decayed, key);
      e1 = exp(sub(decayed, q));
      e2 = exp(sub(key, q));
      put(aa + i, fma(e1, a, mul(e2, value)));
      put(bb + i, fma(e1, b, e2));
      put(pp + i, q);
    });
  }
}

void wkv5(const Wkv5& w, Range heads) {
  int64_t n = w.state.sizes[1];
  alignas(64) float y[max_head_size];
  for (int64_t h = heads.begin; h < heads.end; h++) {
    int64_t c = h * n;
    float* state = w.state.f32() + h * n * n;
    const float* first = w.first.f32() + c;
    for (int64_t t = 0; t < w.r.rows(); t++) {
      const float *r = w.r.row(t) + c, *k = w.k.row(t) + c, *v = w.v.row(t) + c;
      const float* decay = (w.decay.rank == 2 ? w.decay.row(t) : w.decay.f32()) + c;
      std::fill(y, y + n, 0.0f);
      for (int64_t i = 0; i < n; i++) {
        Vec ri = set1(r[i]), ki = set1(k[i]), di = set1(decay[i]), bonus = set1(first[i]);
        for_lanes(n, [&](int64_t j, auto get, auto put) {
          Vec s = get(state + i * n + j), kv = mul(ki, get(v + j));
          put(y + j, fma(ri, fma(bonus, kv, s), get(y + j)));
          put(state + i * n + j, fma(di, s, kv));
        });
      }
      float* out = w.out.row(t) + c;
      group_norm(out, y, w.norm, c, n);
      if (w.gate) {
        const float* gate = w.gate.row(t) + c;
        for_lanes(n, [&](int64_t i, auto get, auto put) { put(out + i, mul(get(out + i), get(gate + i))); });
      }
    }
  }
}

namespace {

// What one head and token of RWKV-7 computes from its inputs before it touches the state.
struct Head7 {
  alignas(64) float kk[max_head_size], kka[max_head_size], key[max_head_size], value[max_head_size];
  float bonus = 0;
};

void prepare_head(const Wkv7& w, int64_t t, int64_t c, int64_t n, Head7& head) {
  const float *k = w.k.row(t) + c, *v = w.v.row(t) + c, *a = w.a.row(t) + c, *r = w.r.row(t) + c;
  const float *k_k = w.k_k.f32() + c, *k_a = w.k_a.f32() + c, *r_k = w.r_k.f32() + c;
  Vec squares = set1(0), bonus = set1(0);
  for_lanes(n, [&](int64_t i, auto get, auto put) {
    Vec kk = mul(get(k + i), get(k_k + i));
    put(head.kk + i, kk);
    squares = fma(kk, kk, squares);
    Vec key = mul(get(k + i), fma(sub(get(a + i), set1(1)), get(k_a + i), set1(1)));
    put(head.key + i, key);
    bonus = fma(mul(get(r + i), key), get(r_k + i), bonus);
    Vec value = get(v + i);
    if (w.v_first) {
      value = fma(sub(get(w.v_first.row(t) + c + i), value), get(w.v_gate.row(t) + c + i), value);
    }
    put(head.value + i, value);
  });
  head.bonus = sum(bonus);
  Vec scale = set1(1.0f / std::max(std::sqrt(sum(squares)), 1e-12f));
  for_lanes(n, [&](int64_t i, auto get, auto put) {
    Vec kk = mul(get(head.kk + i), scale);
    put(head.kk + i, sub(set1(0), kk));
    put(head.kka + i, mul(kk, get(a + i)));
  });
}

}  // namespace

void wkv7(const Wkv7& w, Range heads) {
  int64_t n = w.state.sizes[1];
  Head7 head;
  alignas(64) float sa[max_head_size], y[max_head_size];
  for (int64_t h = heads.begin; h < heads.end; h++) {
    int64_t c = h * n;
    float* state = w.state.f32() + h * n * n;
    for (int64_t t = 0; t < w.r.rows(); t++) {
      prepare_head(w, t, c, n, head);
      const float *r = w.r.row(t) + c, *decay = w.decay.row(t) + c;
      std::fill(sa, sa + n, 0.0f);
      std::fill(y, y + n, 0.0f);
      for (int64_t i = 0; i < n; i++) {
        Vec kk = set1(head.kk[i]);
        for_lanes(n, [&](int64_t j, auto get, auto put) {
          put(sa + j, fma(kk, get(state + i * n + j), get(sa + j)));
        });
      }
      for (int64_t i = 0; i < n; i++) {
        Vec di = set1(decay[i]), bi = set1(head.kka[i]), ki = set1(head.key[i]), ri = set1(r[i]);
        for_lanes(n, [&](int64_t j, auto get, auto put) {
          Vec s = mul(di, get(state + i * n + j));
          s = fma(bi, get(sa + j), s);
          s = fma(ki, get(head.value + j), s);
          put(state + i * n + j, s);
          put(y + j, fma(ri, s, get(y + j)));
        });
      }
      float* out = w.out.row(t) + c;
      const float* g = w.g.row(t) + c;
      group_norm(out, y, w.norm, c, n);
      for_lanes(n, [&](int64_t j, auto get, auto put) {
        put(out + j, mul(fma(set1(head.bonus), get(head.value + j), get(out + j)), get(g + j)));
      });
    }
  }
}

}  // namespace rwkv::cpu::ISA
