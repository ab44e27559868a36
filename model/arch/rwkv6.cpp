#include "model/arch/rwkv6.h"

namespace rwkv::rwkv6 {
namespace {

// The five inputs of time mixing: each is a token shift whose amount is a low-rank function of the first one.
void data_dependent_shift(const Layer& w, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  const Mix mixes[] = {{w.att.time_maa_x, s.mixed[5]}};
  ops.token_shift({s.x, w.ln1, state.att_shift, s.normalized, mixes});
  const Product down[] = {{s.mixed[5], w.att.time_maa_w1, s.hidden[0], Epilogue::tanh}};
  ops.matmul(down);
  int64_t tokens = s.x.rows(), rank = w.att.time_maa_w2[0].sizes[1];
  Tensor before = s.normalized.slice_rows(0, tokens), now = s.normalized.slice_rows(1, tokens);
  std::array<Product, 5> up;
  for (size_t i = 0; i < 5; i++) {
    Tensor hidden = s.hidden[0].slice_cols(static_cast<int64_t>(i) * rank, rank);
    up[i] = {hidden, w.att.time_maa_w2[i], s.mixed[i], Epilogue::biased_mix, w.att.time_maa[i], now, before};
  }
  ops.matmul(up);
}

}  // namespace

void forward(const Layer& w, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  data_dependent_shift(w, pass);
  const auto& [xw, xk, xv, xr, xg, unused] = s.mixed;
  const Product rkvg[] = {{xr, w.att.receptance, s.r},
                          {xk, w.att.key, s.k},
                          {xv, w.att.value, s.v},
                          {xg, w.att.gate, s.gate, Epilogue::silu},
                          {xw, w.att.time_decay_w1, s.hidden[1], Epilogue::tanh}};
  ops.matmul(rkvg);
  const Product decay[] = {{s.hidden[1], w.att.time_decay_w2, s.decay, Epilogue::decay6, w.att.time_decay}};
  ops.matmul(decay);
  ops.wkv5({s.r, s.k, s.v, s.decay, w.att.time_faaaa, w.att.ln_x, s.gate, state.att, s.out});
  const Product output[] = {{s.out, w.att.output, s.x, Epilogue::add}};
  ops.matmul(output);
  channel_mix(w.ffn, w.ln2, pass);
}

}  // namespace rwkv::rwkv6
