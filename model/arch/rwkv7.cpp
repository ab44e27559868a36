#include "model/arch/rwkv7.h"

#include <span>

namespace rwkv::rwkv7 {
namespace {

void time_mix(const Layer& w, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  const auto& [xr, xw, xk, xv, xa, xg] = s.mixed;
  const auto& [hw, ha, hv, hg] = s.hidden;
  bool first = !w.att.v1;  // the first layer's values are what the others mix in
  Tensor v = first ? s.v_first : s.v;
  const Mix mixes[] = {{w.att.x_r, xr}, {w.att.x_w, xw}, {w.att.x_k, xk},
                       {w.att.x_v, xv}, {w.att.x_a, xa}, {w.att.x_g, xg}};
  ops.token_shift({s.x, w.ln1, state.att_shift, s.normalized, mixes});
  const Product down[] = {{xr, w.att.receptance, s.r}, {xk, w.att.key, s.k},
                          {xv, w.att.value, v},        {xw, w.att.w1, hw, Epilogue::tanh},
                          {xa, w.att.a1, ha},          {xg, w.att.g1, hg, Epilogue::sigmoid},
                          {xv, w.att.v1, hv}};
  ops.matmul(std::span(down).first(first ? 6 : 7));
  const Product up[] = {{hw, w.att.w2, s.decay, Epilogue::decay7, w.att.w0},
                        {ha, w.att.a2, s.a, Epilogue::biased_sigmoid, w.att.a0},
                        {hg, w.att.g2, s.gate},
                        {hv, w.att.v2, s.v_gate, Epilogue::biased_sigmoid, w.att.v0}};
  ops.matmul(std::span(up).first(first ? 3 : 4));
  ops.wkv7({s.r, s.decay, s.k, v, s.a, s.gate, first ? Tensor{} : s.v_first, first ? Tensor{} : s.v_gate,
            w.att.k_k, w.att.k_a, w.att.r_k, w.att.ln_x, state.att, s.out});
  const Product output[] = {{s.out, w.att.output, s.x, Epilogue::add}};
  ops.matmul(output);
}

void channel_mix(const Layer& w, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  const Mix mixes[] = {{w.ffn.x_k, s.mixed[0]}};
  ops.token_shift({s.x, w.ln2, state.ffn_shift, s.normalized, mixes});
  const Product inner[] = {{s.mixed[0], w.ffn.key, s.ffn, Epilogue::relu_squared}};
  ops.matmul(inner);
  const Product outer[] = {{s.ffn, w.ffn.value, s.x, Epilogue::add}};
  ops.matmul(outer);
}

}  // namespace

void forward(const Layer& w, const Pass& pass) {
  time_mix(w, pass);
  channel_mix(w, pass);
}

}  // namespace rwkv::rwkv7
