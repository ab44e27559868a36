#include "model/arch/rwkv5.h"

#include <span>

namespace rwkv::rwkv5 {

void forward(const Layer& w, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  size_t inputs = w.att.gate ? 4 : 3;
  const Mix mixes[] = {{w.att.time_mix_k, s.mixed[0]},
                       {w.att.time_mix_v, s.mixed[1]},
                       {w.att.time_mix_r, s.mixed[2]},
                       {w.att.time_mix_g, s.mixed[3]}};
  ops.token_shift({s.x, w.ln1, state.att_shift, s.normalized, std::span(mixes).first(inputs)});
  const Product rkvg[] = {{s.mixed[2], w.att.receptance, s.r},
                          {s.mixed[0], w.att.key, s.k},
                          {s.mixed[1], w.att.value, s.v},
                          {s.mixed[3], w.att.gate, s.gate, Epilogue::silu}};
  ops.matmul(std::span(rkvg).first(inputs));
  ops.wkv5({s.r, s.k, s.v, w.att.time_decay, w.att.time_faaaa, w.att.ln_x, w.att.gate ? s.gate : Tensor{},
            state.att, s.out});
  const Product output[] = {{s.out, w.att.output, s.x, Epilogue::add}};
  ops.matmul(output);
  channel_mix(w.ffn, w.ln2, pass);
}

}  // namespace rwkv::rwkv5
