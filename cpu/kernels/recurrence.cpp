// The recurrences of time mixing. Lanes are value channels, so that no sum runs across lanes.
//
// Bytes and operations: a head's state (N * N * 4 bytes, 16 KiB for N = 64) stays in the first-level cache
// while the tokens of a chunk pass. Each vector of it is loaded and stored once for a token; what belongs to
// a row of it (decay, key ...) is broadcast from memory, so several vectors of a row are done together:
// RWKV-7 then has 9 loads for 20 operations on four vectors and is bound by arithmetic, 640 cycles for N = 64
// with two 512-bit units.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "cpu/kernels/kernels.h"
// Last: it selects the instruction set.
#include "cpu/kernels/math.h"

namespace rwkv::cpu::ISA {
namespace {

#if RWKV_ISA <= RWKV_ISA_avxvnni
constexpr int head_vectors = 1;
#else
constexpr int head_vectors = 4;
#endif

/// Calls body.operator()<vectors>(j, load, store) for all columns j of [0, n), `vectors` times 16 of them.
template <class Body>
void for_columns(int64_t n, Body body) {
  auto get = [](const float* p) { return load(p); };
  auto put = [](float* p, Vec v) { store(p, v); };
  int64_t j = 0;
  for (; j + head_vectors * 16 <= n; j += head_vectors * 16)
    body.template operator()<head_vectors>(j, get, put);
  for (; j + 16 <= n; j += 16) body.template operator()<1>(j, get, put);
  if (int64_t rest = n - j; rest > 0) {
    body.template operator()<1>(
        j, [rest](const float* p) { return load_part(p, rest); },
        [rest](float* p, Vec v) { store_part(p, v, rest); });
  }
}

float sum_of(const float* values, int64_t n) {
  Vec total = set1(0);
  for_lanes(n, [&](int64_t i, auto get, auto) { total = add(total, get(values + i)); });
  return sum(total);
}

/// out[0..n) = normalize(y) with the group norm's epsilon.
void group_norm(float* out, const float* y, const Norm& norm, int64_t channel, int64_t n) {
  alignas(64) float squares[max_head_size];
  Vec mean = set1(sum_of(y, n) / static_cast<float>(n));
  for_lanes(n, [&](int64_t i, auto get, auto put) {
    Vec d = sub(get(y + i), mean);
    put(squares + i, mul(d, d));
  });
  float variance = sum_of(squares, n) / static_cast<float>(n);
  Vec scale = set1(1.0f / std::sqrt(variance + group_norm_epsilon));
  const float *weight = norm.weight.f32() + channel, *bias = norm.bias.f32() + channel;
  for_lanes(n, [&](int64_t i, auto get, auto put) {
    put(out + i, fma(mul(sub(get(y + i), mean), scale), get(weight + i), get(bias + i)));
  });
}

/// Asks for channels [c, c + n) of the token after the next one, which lie too far behind those of this one
/// for the processor to see them coming.
void fetch_ahead(std::initializer_list<const Tensor*> tensors, int64_t t, int64_t c, int64_t n) {
  for (const Tensor* tensor : tensors) {
    if (!*tensor || tensor->rank < 2 || t + 2 >= tensor->rows()) continue;
    for (int64_t i = 0; i < n; i += 16) prefetch(tensor->row(t + 2) + c + i);
  }
}

}  // namespace

void wkv4(const Wkv4& w, Range channels) {
  const float *decay = w.decay.f32(), *first = w.first.f32();
  float *aa = w.state.row(0), *bb = w.state.row(1), *pp = w.state.row(2);
  for_lanes(channels.end - channels.begin, [&](int64_t offset, auto get, auto put) {
    int64_t i = channels.begin + offset;
    Vec a = get(aa + i), b = get(bb + i), p = get(pp + i), u = get(first + i), d = get(decay + i);
    for (int64_t t = 0; t < w.r.rows(); t++) {
      Vec key = get(w.k.row(t) + i), value = get(w.v.row(t) + i);
      Vec bonus = add(u, key);
      Vec q = max_of(p, bonus);
      Vec e1 = exp(sub(p, q)), e2 = exp(sub(bonus, q));
      Vec y = div(fma(e1, a, mul(e2, value)), fma(e1, b, e2));
      put(w.out.row(t) + i, mul(get(w.r.row(t) + i), y));
      Vec decayed = add(d, p);
      q = max_of(decayed, key);
      e1 = exp(sub(decayed, q));
      e2 = exp(sub(key, q));
      a = fma(e1, a, mul(e2, value));
      b = fma(e1, b, e2);
      p = q;
    }
    put(aa + i, a);
    put(bb + i, b);
    put(pp + i, p);
  });
}

namespace {

/// One token of a head: y, and the state after it.
void step5(float* state, const float* r, const float* k, const float* v, const float* decay,
           const float* first, int64_t n, float* y) {
  for_columns(n, [&]<int vectors>(int64_t j, auto get, auto put) {
    Vec value[vectors], out[vectors];
    for (int c = 0; c < vectors; c++) {
      value[c] = get(v + j + c * 16);
      out[c] = set1(0);
    }
    for (int64_t i = 0; i < n; i++) {
      Vec ri = set1(r[i]), ki = set1(k[i]), di = set1(decay[i]), bonus = set1(first[i]);
      for (int c = 0; c < vectors; c++) {
        float* at = state + i * n + j + c * 16;
        Vec s = get(at), kv = mul(ki, value[c]);
        out[c] = fma(ri, fma(bonus, kv, s), out[c]);
        put(at, fma(di, s, kv));
      }
    }
    for (int c = 0; c < vectors; c++) put(y + j + c * 16, out[c]);
  });
}

}  // namespace

void wkv5(const Wkv5& w, Range heads) {
  int64_t n = w.state.sizes[1];
  alignas(64) float y[max_head_size];
  for (int64_t h = heads.begin; h < heads.end; h++) {
    int64_t c = h * n;
    for (int64_t t = 0; t < w.r.rows(); t++) {
      fetch_ahead({&w.r, &w.k, &w.v, &w.decay, &w.gate, &w.out}, t, c, n);
      const float* decay = (w.decay.rank == 2 ? w.decay.row(t) : w.decay.f32()) + c;
      step5(w.state.f32() + c * n, w.r.row(t) + c, w.k.row(t) + c, w.v.row(t) + c, decay, w.first.f32() + c,
            n, y);
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

/// sa[j] = sum over i of kk[i] * state[i][j]
void removed_by(float* sa, const float* kk, const float* state, int64_t n) {
  for_columns(n, [&]<int vectors>(int64_t j, auto get, auto put) {
    Vec sums[vectors];
    for (Vec& s : sums) s = set1(0);
    for (int64_t i = 0; i < n; i++) {
      Vec factor = set1(kk[i]);
      for (int c = 0; c < vectors; c++) sums[c] = fma(factor, get(state + i * n + j + c * 16), sums[c]);
    }
    for (int c = 0; c < vectors; c++) put(sa + j + c * 16, sums[c]);
  });
}

/// One token of a head: y, the state after it, and in sa what the next token, with its kk, removes from that.
void step7(float* state, const Head7& head, const float* decay, const float* r, const float* next_kk,
           int64_t n, float* sa, float* y) {
  for_columns(n, [&]<int vectors>(int64_t j, auto get, auto put) {
    Vec value[vectors], removed[vectors], next[vectors], out[vectors];
    for (int c = 0; c < vectors; c++) {
      value[c] = get(head.value + j + c * 16);
      removed[c] = get(sa + j + c * 16);
      next[c] = out[c] = set1(0);
    }
    for (int64_t i = 0; i < n; i++) {
      Vec di = set1(decay[i]), bi = set1(head.kka[i]), ki = set1(head.key[i]), ri = set1(r[i]),
          kk = set1(next_kk[i]);
      for (int c = 0; c < vectors; c++) {
        float* at = state + i * n + j + c * 16;
        Vec s = mul(di, get(at));
        s = fma(bi, removed[c], s);
        s = fma(ki, value[c], s);
        put(at, s);
        out[c] = fma(ri, s, out[c]);
        next[c] = fma(kk, s, next[c]);
      }
    }
    for (int c = 0; c < vectors; c++) {
      put(y + j + c * 16, out[c]);
      put(sa + j + c * 16, next[c]);
    }
  });
}

}  // namespace

void wkv7(const Wkv7& w, Range heads) {
  int64_t n = w.state.sizes[1], tokens = w.r.rows();
  Head7 prepared[2];
  alignas(64) float sa[max_head_size], y[max_head_size];
  for (int64_t h = heads.begin; h < heads.end; h++) {
    int64_t c = h * n;
    float* state = w.state.f32() + c * n;
    for (int64_t t = 0; t < tokens; t++) {
      fetch_ahead({&w.r, &w.decay, &w.k, &w.v, &w.a, &w.g, &w.v_first, &w.v_gate, &w.out}, t, c, n);
      Head7 &head = prepared[t % 2], &next = prepared[(t + 1) % 2];
      if (t == 0) {
        prepare_head(w, 0, c, n, head);
        removed_by(sa, head.kk, state, n);
      }
      // What is computed for a token behind the last one is not used.
      prepare_head(w, std::min(t + 1, tokens - 1), c, n, next);
      step7(state, head, w.decay.row(t) + c, w.r.row(t) + c, next.kk, n, sa, y);
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
