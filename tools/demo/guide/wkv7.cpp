// The recurrence of RWKV-7 for training on a CPU, forward and backward, for heads of 32:
//
//   sa = S a,  S = S diag(w) + sa b^T + v k^T,  y = S r        S is [value, key]
//
// The forward pass keeps sa and, every 16 steps, S. From these the backward pass makes the states of 16 steps
// anew.
#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

using torch::Tensor;
using Vector = float __attribute__((vector_size(64)));

constexpr int head = 32, lanes = 16, interval = 16, state_size = head * head;

// 32 floats in registers.
struct Row {
  Vector low = {}, high = {};
};

inline Row load(const float* from) {
  Row row;
  std::memcpy(&row.low, from, sizeof row.low);
  std::memcpy(&row.high, from + lanes, sizeof row.high);
  return row;
}

inline void store(float* to, Row row) {
  std::memcpy(to, &row.low, sizeof row.low);
  std::memcpy(to + lanes, &row.high, sizeof row.high);
}

inline Row operator+(Row a, Row b) { return {a.low + b.low, a.high + b.high}; }
inline Row operator*(Row a, Row b) { return {a.low * b.low, a.high * b.high}; }
inline Row operator*(Row a, float b) { return {a.low * b, a.high * b}; }

inline float sum(Row row) {
  Vector both = row.low + row.high;
  float total = 0;
  for (int i = 0; i < lanes; i++) total += both[i];
  return total;
}

// One head of one sequence: the first step's pointers; the next step lies `stride` further.
struct Inputs {
  const float *r, *w, *k, *v, *a, *b;
};

// The state is transposed here, values in the lanes, so that no sum runs across lanes. The pass over the
// state that finds y also finds the next step's sa.
void forward_head(const Inputs& in, const float* start, float* y, float* sa, float* kept, int64_t steps,
                  int64_t stride) {
  alignas(64) float state[head][head];
  for (int i = 0; i < head; i++) {
    for (int j = 0; j < head; j++) state[j][i] = start[i * head + j];
  }
  Row next_sa;
  for (int j = 0; j < head; j++) next_sa = next_sa + load(state[j]) * in.a[j];
  for (int64_t t = 0; t < steps; t++) {
    if (t % interval == 0) {
      float* copy = kept + t / interval * state_size;
      for (int i = 0; i < head; i++) {
        for (int j = 0; j < head; j++) copy[i * head + j] = state[j][i];
      }
    }
    const int64_t at = t * stride, next = std::min(t + 1, steps - 1) * stride;
    const Row now_sa = next_sa, v = load(in.v + at);
    Row out;
    next_sa = {};
    for (int j = 0; j < head; j++) {
      Row column = load(state[j]) * in.w[at + j] + now_sa * in.b[at + j] + v * in.k[at + j];
      store(state[j], column);
      out = out + column * in.r[at + j];
      next_sa = next_sa + column * in.a[next + j];
    }
    store(sa + at, now_sa);
    store(y + at, out);
  }
}

struct Gradients {
  float *r, *w, *k, *v, *a, *b;
};

// The gradients of step t, from the states before and after it. `d_state` is the gradient of the state after
// the step on entry, of that before it on return.
void backward_step(const Inputs& in, const float* sa, const float* dy, const float* before,
                   const float* after, float* d_state, const Gradients& out) {
  const Row r = load(in.r), w = load(in.w), k = load(in.k), a = load(in.a), b = load(in.b);
  Row dr, dw, dk, da, db;
  for (int i = 0; i < head; i++) {
    const Row old = load(before + i * head);
    const Row d = load(d_state + i * head) + r * dy[i];
    const float d_sa = sum(d * b);
    out.v[i] = sum(d * k);
    dr = dr + load(after + i * head) * dy[i];
    dw = dw + d * old;
    dk = dk + d * in.v[i];
    db = db + d * sa[i];
    da = da + old * d_sa;
    store(d_state + i * head, d * w + a * d_sa);
  }
  store(out.r, dr);
  store(out.w, dw);
  store(out.k, dk);
  store(out.a, da);
  store(out.b, db);
}

void backward_head(const Inputs& in, const float* sa, const float* kept, const float* dy,
                   const Gradients& out, float* d_start, int64_t steps, int64_t stride) {
  thread_local std::vector<float> states((interval + 1) * state_size);
  std::fill_n(d_start, state_size, 0.0f);
  for (int64_t part = (steps - 1) / interval; part >= 0; part--) {
    const int64_t begin = part * interval, count = std::min<int64_t>(interval, steps - begin);
    std::copy_n(kept + part * state_size, state_size, states.data());
    for (int64_t n = 0; n < count; n++) {
      const float* before = states.data() + n * state_size;
      const int64_t at = (begin + n) * stride;
      const Row w = load(in.w + at), k = load(in.k + at), b = load(in.b + at);
      for (int i = 0; i < head; i++) {
        Row row = load(before + i * head) * w + b * sa[at + i] + k * in.v[at + i];
        store(states.data() + (n + 1) * state_size + i * head, row);
      }
    }
    for (int64_t n = count - 1; n >= 0; n--) {
      const float* before = states.data() + n * state_size;
      const int64_t at = (begin + n) * stride;
      backward_step({in.r + at, in.w + at, in.k + at, in.v + at, in.a + at, in.b + at}, sa + at, dy + at,
                    before, before + state_size, d_start,
                    {out.r + at, out.w + at, out.k + at, out.v + at, out.a + at, out.b + at});
    }
  }
}

float* data(const Tensor& tensor) { return tensor.data_ptr<float>(); }

// Tensors are [batch, steps, heads, 32], states [batch, heads, 32, 32]. Calls work(sequence and head, offset
// of its first step) on all threads.
template <class Work>
void for_each_head(const Tensor& like, const Work& work) {
  TORCH_CHECK(like.size(3) == head, "heads must have ", head, " channels");
  const int64_t heads = like.size(2), sequence = like.size(1) * heads * head;
  at::parallel_for(0, like.size(0) * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) work(n, n / heads * sequence + n % heads * head);
  });
}

int64_t parts(const Tensor& like) { return (like.size(1) + interval - 1) / interval; }

std::vector<Tensor> forward(const Tensor& start, const Tensor& r, const Tensor& w, const Tensor& k,
                            const Tensor& v, const Tensor& a, const Tensor& b) {
  Tensor y = torch::empty_like(r), sa = torch::empty_like(r);
  Tensor kept = torch::empty({r.size(0), r.size(2), parts(r), head, head}, r.options());
  for_each_head(r, [&](int64_t n, int64_t at) {
    forward_head({data(r) + at, data(w) + at, data(k) + at, data(v) + at, data(a) + at, data(b) + at},
                 data(start) + n * state_size, data(y) + at, data(sa) + at,
                 data(kept) + n * parts(r) * state_size, r.size(1), r.size(2) * head);
  });
  return {y, sa, kept};
}

std::vector<Tensor> backward(const Tensor& r, const Tensor& w, const Tensor& k, const Tensor& v,
                             const Tensor& a, const Tensor& b, const Tensor& sa, const Tensor& kept,
                             const Tensor& dy) {
  Tensor d_start = torch::empty({r.size(0), r.size(2), head, head}, r.options());
  std::vector<Tensor> out = {d_start};
  for (int i = 0; i < 6; i++) out.push_back(torch::empty_like(r));
  for_each_head(r, [&](int64_t n, int64_t at) {
    backward_head({data(r) + at, data(w) + at, data(k) + at, data(v) + at, data(a) + at, data(b) + at},
                  data(sa) + at, data(kept) + n * parts(r) * state_size, data(dy) + at,
                  {data(out[1]) + at, data(out[2]) + at, data(out[3]) + at, data(out[4]) + at,
                   data(out[5]) + at, data(out[6]) + at},
                  data(d_start) + n * state_size, r.size(1), r.size(2) * head);
  });
  return out;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
