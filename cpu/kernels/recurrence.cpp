// The recurrences of time mixing. Lanes are value channels, so that no sum runs across lanes.
//
// Bytes and operations: a head's state (N * N * 4 bytes, 16 KiB for N = 64) stays in the first-level cache
// while the tokens of a chunk pass. What belongs to a row of it (decay, key ...) is broadcast from memory, so
// four vectors of a row are done together. RWKV-7 then has 9 loads and 4 stores for 20 operations: 640 cycles
// for N = 64 with two 512-bit units, 830 where a core has little more than one load or store a cycle. Each
// token has to wait for all that the one before has left; those of RWKV-5 and 6 do not, and two of them share
// the loads and stores of the state: 11 and 4 for 32 operations.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "cpu/kernels/kernels.h"
// Last: it selects the instruction set.
#include "cpu/kernels/math.h"

namespace rwkv::cpu::ISA {
namespace {

/// Vectors of a row at once: of a head of 64 channels a whole row, so that the state is read in the order in
/// which it lies, or as many as a step has registers for.
constexpr int row_vectors = 4;
constexpr int step_vectors = RWKV_ISA <= RWKV_ISA_avxvnni ? 1 : row_vectors;

/// Calls body.operator()<vectors>(j, load, store) for all columns j of [0, n), `vectors` times 16 of them.
template <int most, class Body>
void for_columns(int64_t n, Body body) {
  auto get = [](const float* p) { return load(p); };
  auto put = [](float* p, Vec v) { store(p, v); };
  int64_t j = 0;
  for (; j + most * 16 <= n; j += most * 16) body.template operator()<most>(j, get, put);
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

/// Asks for channels [c, c + n) of a token that comes soon: they lie too far behind those of this one for the
/// processor to see them coming, and another core may have written them.
void fetch(std::initializer_list<const Tensor*> read, const Tensor& written, int64_t t, int64_t c,
           int64_t n) {
  if (t >= written.rows()) return;
  for (const Tensor* tensor : read) {
    if (!*tensor || tensor->rank < 2) continue;
    for (int64_t i = 0; i < n; i += 16) prefetch(tensor->row(t) + c + i);
  }
  for (int64_t i = 0; i < n; i += 16) prefetch_to_write(written.row(t) + c + i);
}

/// The head to ask for: not one behind the range, which may be in another core's hands.
int64_t next_of(int64_t head, Range heads) { return std::min(head + 1, heads.end - 1); }

/// One token of channels [c, c + n).
void step4(const Wkv4& w, int64_t t, int64_t c, int64_t n) {
  const float *r = w.r.row(t) + c, *k = w.k.row(t) + c, *v = w.v.row(t) + c;
  const float *decay = w.decay.f32() + c, *first = w.first.f32() + c;
  float *aa = w.state.row(0) + c, *bb = w.state.row(1) + c, *pp = w.state.row(2) + c;
  float* out = w.out.row(t) + c;
  for_lanes(n, [&](int64_t i, auto get, auto put) {
    const Vec a = get(aa + i), b = get(bb + i), p = get(pp + i), key = get(k + i), value = get(v + i);
    const Vec bonus = add(get(first + i), key);
    Vec q = max_of(p, bonus);
    Vec e1 = exp(sub(p, q)), e2 = exp(sub(bonus, q));
    const Vec y = div(fma(e1, a, mul(e2, value)), fma(e1, b, e2));
    put(out + i, mul(get(r + i), y));
    const Vec decayed = add(get(decay + i), p);
    q = max_of(decayed, key);
    e1 = exp(sub(decayed, q));
    e2 = exp(sub(key, q));
    put(aa + i, fma(e1, a, mul(e2, value)));
    put(bb + i, fma(e1, b, e2));
    put(pp + i, q);
  });
}

}  // namespace

void wkv4(const Wkv4& w, Range channels) {
  constexpr int64_t at_once = 64;  // lines that follow each other: the next token's may be a page away
  for (int64_t c = channels.begin; c < channels.end; c += at_once) {
    const int64_t n = std::min(at_once, channels.end - c);
    for (int64_t t = 0; t < w.r.rows(); t++) {
      fetch({&w.r, &w.k, &w.v}, w.out, t + 2, c, n);
      step4(w, t, c, n);
    }
  }
}

namespace {

/// What a token gives a head.
struct Step5 {
  const float *r, *k, *v, *decay;
  float* y;
};

/// `count` tokens of a head: y of each, and the state after them. Each row of the state is loaded and stored
/// once for all of them. The last ones ask for the next head's state.
template <bool last, int count>
void step5(float* state, const Step5 (&tokens)[count], const float* first, const float* next_state,
           int64_t n) {
  for_columns<step_vectors>(n, [&]<int vectors>(int64_t j, auto get, auto put) {
    Vec value[count][vectors], out[count][vectors];
    for (int t = 0; t < count; t++) {
      for (int c = 0; c < vectors; c++) {
        value[t][c] = get(tokens[t].v + j + c * 16);
        out[t][c] = set1(0);
      }
    }
    for (int64_t i = 0; i < n; i++) {
      const Vec bonus = set1(first[i]);
      Vec s[vectors];
      for (int c = 0; c < vectors; c++) s[c] = get(state + i * n + j + c * 16);
      for (int t = 0; t < count; t++) {
        const Vec ri = set1(tokens[t].r[i]), ki = set1(tokens[t].k[i]), di = set1(tokens[t].decay[i]);
        for (int c = 0; c < vectors; c++) {
          const Vec kv = mul(ki, value[t][c]);
          out[t][c] = fma(ri, fma(bonus, kv, s[c]), out[t][c]);
          s[c] = fma(di, s[c], kv);
        }
      }
      for (int c = 0; c < vectors; c++) {
        const int64_t at = i * n + j + c * 16;
        put(state + at, s[c]);
        if (last) prefetch_to_write(next_state + at);
      }
    }
    for (int t = 0; t < count; t++) {
      for (int c = 0; c < vectors; c++) put(tokens[t].y + j + c * 16, out[t][c]);
    }
  });
}

/// out = normalize(y) * gate
void finish5(const Wkv5& w, int64_t t, int64_t c, int64_t n, const float* y) {
  float* out = w.out.row(t) + c;
  group_norm(out, y, w.norm, c, n);
  if (!w.gate) return;
  const float* gate = w.gate.row(t) + c;
  for_lanes(n, [&](int64_t i, auto get, auto put) { put(out + i, mul(get(out + i), get(gate + i))); });
}

}  // namespace

void wkv5(const Wkv5& w, Range heads) {
  const int64_t n = w.state.sizes[1], tokens = w.r.rows();
  const auto fetch_inputs = [&](int64_t h, int64_t t) {
    fetch({&w.r, &w.k, &w.v, &w.decay, &w.gate}, w.out, t, h * n, n);
  };
  alignas(64) float y[2][max_head_size];
  fetch_inputs(heads.begin, 0);
  for (int64_t h = heads.begin; h < heads.end; h++) {
    const int64_t c = h * n, next_head = next_of(h, heads);
    float* state = w.state.f32() + c * n;
    const float *first = w.first.f32() + c, *next_state = w.state.f32() + next_head * n * n;
    auto token = [&](int64_t t) -> Step5 {
      fetch_inputs(h, t + 2);
      const float* decay = (w.decay.rank == 2 ? w.decay.row(t) : w.decay.f32()) + c;
      return {w.r.row(t) + c, w.k.row(t) + c, w.v.row(t) + c, decay, y[t % 2]};
    };
    auto run = [&]<int count>(const Step5(&steps)[count], int64_t t) {
      if (t + count < tokens) {
        step5<false>(state, steps, first, next_state, n);
      } else {
        fetch_inputs(next_head, 0);
        step5<true>(state, steps, first, next_state, n);
      }
      for (int i = 0; i < count; i++) finish5(w, t + i, c, n, steps[i].y);
    };
    int64_t t = 0;
    for (; t + 2 <= tokens; t += 2) run({token(t), token(t + 1)}, t);
    if (t < tokens) run({token(t)}, t);
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
  for_columns<row_vectors>(n, [&]<int vectors>(int64_t j, auto get, auto put) {
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
/// The last token has no next_kk and no next sa, and asks for the next head's state instead.
template <bool last>
void step7(float* state, const Head7& head, const float* decay, const float* r, const float* next_kk,
           const float* next_state, int64_t n, float* sa, float* y) {
  for_columns<step_vectors>(n, [&]<int vectors>(int64_t j, auto get, auto put) {
    Vec value[vectors], removed[vectors], next[vectors], out[vectors];
    for (int c = 0; c < vectors; c++) {
      value[c] = get(head.value + j + c * 16);
      removed[c] = get(sa + j + c * 16);
      next[c] = out[c] = set1(0);
    }
    for (int64_t i = 0; i < n; i++) {
      Vec di = set1(decay[i]), bi = set1(head.kka[i]), ki = set1(head.key[i]), ri = set1(r[i]),
          kk = set1(last ? 0.0f : next_kk[i]);
      for (int c = 0; c < vectors; c++) {
        float* at = state + i * n + j + c * 16;
        Vec s = mul(di, get(at));
        s = fma(bi, removed[c], s);
        s = fma(ki, value[c], s);
        put(at, s);
        out[c] = fma(ri, s, out[c]);
        if constexpr (last) {
          prefetch_to_write(next_state + (at - state));
        } else {
          next[c] = fma(kk, s, next[c]);
        }
      }
    }
    for (int c = 0; c < vectors; c++) {
      put(y + j + c * 16, out[c]);
      if constexpr (!last) put(sa + j + c * 16, next[c]);
    }
  });
}

}  // namespace

void wkv7(const Wkv7& w, Range heads) {
  const int64_t n = w.state.sizes[1], tokens = w.r.rows();
  const auto fetch_inputs = [&](int64_t h, int64_t t) {
    fetch({&w.r, &w.decay, &w.k, &w.v, &w.a, &w.g, &w.v_first, &w.v_gate}, w.out, t, h * n, n);
  };
  Head7 prepared[2];
  alignas(64) float sa[max_head_size], y[max_head_size];
  fetch_inputs(heads.begin, 0);
  for (int64_t h = heads.begin; h < heads.end; h++) {
    const int64_t c = h * n, next_head = next_of(h, heads);
    float *state = w.state.f32() + c * n, *next_state = w.state.f32() + next_head * n * n;
    for (int64_t t = 0; t < tokens; t++) {
      fetch_inputs(h, t + 2);
      Head7 &head = prepared[t % 2], &next = prepared[(t + 1) % 2];
      if (t == 0) {
        prepare_head(w, 0, c, n, head);
        removed_by(sa, head.kk, state, n);
      }
      if (t + 1 < tokens) {
        prepare_head(w, t + 1, c, n, next);
        step7<false>(state, head, w.decay.row(t) + c, w.r.row(t) + c, next.kk, nullptr, n, sa, y);
      } else {
        fetch_inputs(next_head, 0);
        step7<true>(state, head, w.decay.row(t) + c, w.r.row(t) + c, nullptr, next_state, n, sa, y);
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
