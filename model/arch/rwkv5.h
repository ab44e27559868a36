// RWKV-5 (Eagle, arXiv 2404.05892): 5.0 has one decay per head and no gate, 5.1 adds the gate, 5.2 has one
// decay per channel.
#pragma once

#include "model/arch/channel_mix.h"
#include "model/arch/pass.h"
#include "model/weights.h"

namespace rwkv::rwkv5 {

struct Layer {
  Norm ln1, ln2;
  struct {
    Tensor time_mix_k, time_mix_v, time_mix_r, time_mix_g;  // [D], 1 minus the checkpoint's
    Tensor time_decay, time_faaaa;                          // [A], a head's value repeated in 5.0 and 5.1
    Tensor receptance, key, value, gate, output;
    Norm ln_x;
    Tensor time_state;
  } att;
  ChannelMix ffn;
};

template <class Visit>
void for_each_tensor(Layer& w, const Config& c, int64_t, Visit visit) {
  bool gated = c.version != Version::v5_0;
  for_each_norm(w.ln1, "ln1", c.n_embd, visit);
  visit(vector_spec("att.time_mix_k", c.n_embd, Transform::one_minus), w.att.time_mix_k);
  visit(vector_spec("att.time_mix_v", c.n_embd, Transform::one_minus), w.att.time_mix_v);
  visit(vector_spec("att.time_mix_r", c.n_embd, Transform::one_minus), w.att.time_mix_r);
  if (gated) visit(vector_spec("att.time_mix_g", c.n_embd, Transform::one_minus), w.att.time_mix_g);
  visit(matrix_spec("att.receptance.weight", c.n_att, c.n_embd), w.att.receptance);
  visit(matrix_spec("att.key.weight", c.n_att, c.n_embd), w.att.key);
  visit(matrix_spec("att.value.weight", c.n_att, c.n_embd), w.att.value);
  if (gated) visit(matrix_spec("att.gate.weight", c.n_att, c.n_embd), w.att.gate);
  visit(vector_spec("att.time_decay", c.n_att, Transform::exp_negative_exp), w.att.time_decay);
  visit(vector_spec("att.time_faaaa", c.n_att), w.att.time_faaaa);
  for_each_norm(w.att.ln_x, "att.ln_x", c.n_att, visit);
  if (c.has_time_state) visit(time_state_spec(c), w.att.time_state);
  visit(matrix_spec("att.output.weight", c.n_embd, c.n_att), w.att.output);
  for_each_norm(w.ln2, "ln2", c.n_embd, visit);
  for_each_tensor(w.ffn, c, "time_mix_", Transform::one_minus, visit);
}

void forward(const Layer& w, const Pass& pass);

}  // namespace rwkv::rwkv5
