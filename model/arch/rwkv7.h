// RWKV-7 (Goose, arXiv 2503.14456).
#pragma once

#include <array>

#include "model/arch/pass.h"
#include "model/weights.h"

namespace rwkv::rwkv7 {

struct Layer {
  Norm ln1, ln2;
  struct {
    Tensor x_r, x_w, x_k, x_v, x_a, x_g;  // [D]
    Tensor receptance, key, value, output;
    Tensor w0, w1, w2;     // decay: [A], [rank, D], [A, rank]; so are the next three
    Tensor a0, a1, a2;     // in-context learning rate
    Tensor v0, v1, v2;     // value residual; none in the first layer
    Tensor g1, g2;         // gate
    Tensor k_k, k_a, r_k;  // [A]
    Norm ln_x;
    Tensor time_state;
  } att;
  struct {
    Tensor x_k;
    Tensor key, value;
  } ffn;
};

template <class Visit>
void for_each_tensor(Layer& w, const Config& c, int64_t index, Visit visit) {
  for_each_norm(w.ln1, "ln1", c.n_embd, visit);
  visit(vector_spec("att.x_r", c.n_embd), w.att.x_r);
  visit(vector_spec("att.x_w", c.n_embd), w.att.x_w);
  visit(vector_spec("att.x_k", c.n_embd), w.att.x_k);
  visit(vector_spec("att.x_v", c.n_embd), w.att.x_v);
  visit(vector_spec("att.x_a", c.n_embd), w.att.x_a);
  visit(vector_spec("att.x_g", c.n_embd), w.att.x_g);
  visit(matrix_spec("att.receptance.weight", c.n_att, c.n_embd), w.att.receptance);
  visit(matrix_spec("att.key.weight", c.n_att, c.n_embd), w.att.key);
  visit(matrix_spec("att.value.weight", c.n_att, c.n_embd), w.att.value);
  visit(low_rank_spec("att.w1", c.decay_rank, c.n_embd), w.att.w1);
  visit(low_rank_spec("att.a1", c.a_rank, c.n_embd), w.att.a1);
  if (index > 0) visit(low_rank_spec("att.v1", c.v_rank, c.n_embd), w.att.v1);
  visit(low_rank_spec("att.g1", c.g_rank, c.n_embd), w.att.g1);
  visit(low_rank_spec("att.w2", c.n_att, c.decay_rank), w.att.w2);
  visit(low_rank_spec("att.a2", c.n_att, c.a_rank), w.att.a2);
  if (index > 0) visit(low_rank_spec("att.v2", c.n_att, c.v_rank), w.att.v2);
  visit(low_rank_spec("att.g2", c.n_att, c.g_rank), w.att.g2);
  visit(vector_spec("att.w0", c.n_att), w.att.w0);
  visit(vector_spec("att.a0", c.n_att), w.att.a0);
  if (index > 0) visit(vector_spec("att.v0", c.n_att), w.att.v0);
  visit(vector_spec("att.k_k", c.n_att), w.att.k_k);
  visit(vector_spec("att.k_a", c.n_att), w.att.k_a);
  visit(vector_spec("att.r_k", c.n_att), w.att.r_k);
  for_each_norm(w.att.ln_x, "att.ln_x", c.n_att, visit);
  if (c.has_time_state) visit(time_state_spec(c), w.att.time_state);
  visit(matrix_spec("att.output.weight", c.n_embd, c.n_att), w.att.output);
  for_each_norm(w.ln2, "ln2", c.n_embd, visit);
  visit(vector_spec("ffn.x_k", c.n_embd), w.ffn.x_k);
  visit(matrix_spec("ffn.key.weight", c.n_ffn, c.n_embd), w.ffn.key);
  visit(rows_spec("ffn.value.weight", c.n_embd, c.n_ffn), w.ffn.value);
}

void forward(const Layer& w, const Pass& pass);

}  // namespace rwkv::rwkv7
