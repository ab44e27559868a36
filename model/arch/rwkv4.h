// RWKV-4 (arXiv 2305.13048).
#pragma once

#include "model/arch/channel_mix.h"
#include "model/arch/pass.h"
#include "model/weights.h"

namespace rwkv::rwkv4 {

struct Layer {
  Norm ln1, ln2;
  struct {
    Tensor time_mix_k, time_mix_v, time_mix_r;  // [D], 1 minus the checkpoint's
    Tensor time_decay, time_first;              // [A]
    Tensor receptance, key, value, output;
  } att;
  ChannelMix ffn;
};

template <class Visit>
void for_each_tensor(Layer& w, const Config& c, int64_t, Visit visit) {
  for_each_norm(w.ln1, "ln1", c.n_embd, visit);
  visit(vector_spec("att.time_mix_k", c.n_embd, Transform::one_minus), w.att.time_mix_k);
  visit(vector_spec("att.time_mix_v", c.n_embd, Transform::one_minus), w.att.time_mix_v);
  visit(vector_spec("att.time_mix_r", c.n_embd, Transform::one_minus), w.att.time_mix_r);
  visit(matrix_spec("att.receptance.weight", c.n_att, c.n_embd), w.att.receptance);
  visit(matrix_spec("att.key.weight", c.n_att, c.n_embd), w.att.key);
  visit(matrix_spec("att.value.weight", c.n_att, c.n_embd), w.att.value);
  visit(vector_spec("att.time_decay", c.n_att, Transform::negative_exp), w.att.time_decay);
  visit(vector_spec("att.time_first", c.n_att), w.att.time_first);
  visit(matrix_spec("att.output.weight", c.n_embd, c.n_att), w.att.output);
  for_each_norm(w.ln2, "ln2", c.n_embd, visit);
  for_each_tensor(w.ffn, c, "time_mix_", Transform::one_minus, visit);
}

void forward(const Layer& w, const Pass& pass);

}  // namespace rwkv::rwkv4
