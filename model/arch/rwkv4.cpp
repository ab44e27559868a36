#include "model/arch/rwkv4.h"

namespace rwkv::rwkv4 {

void forward(const Layer& w, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  const Mix mixes[] = {
      {w.att.time_mix_k, s.mixed[0]}, {w.att.time_mix_v, s.mixed[1]}, {w.att.time_mix_r, s.mixed[2]}};
  ops.token_shift({s.x, w.ln1, state.att_shift, s.normalized, mixes});
  const Product rkv[] = {{s.mixed[2], w.att.receptance, s.r, Epilogue::sigmoid},
                         {s.mixed[0], w.att.key, s.k},
                         {s.mixed[1], w.att.value, s.v}};
  ops.matmul(rkv);
  ops.wkv4({s.r, s.k, s.v, w.att.time_decay, w.att.time_first, state.att, s.out});
  const Product output[] = {{s.out, w.att.output, s.x, Epilogue::add}};
  ops.matmul(output);
  channel_mix(w.ffn, w.ln2, pass);
}

}  // namespace rwkv::rwkv4
