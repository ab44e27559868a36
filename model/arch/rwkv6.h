// RWKV-6 (Finch, arXiv 2404.05892): token shift and decay depend on the data, through low-rank matrices.
#pragma once

#include <array>

#include "model/arch/channel_mix.h"
#include "model/arch/pass.h"
#include "model/weights.h"

namespace rwkv::rwkv6 {

/// The order of the five parts of time_maa_w2.
constexpr std::array<const char*, 5> mix_parts = {"w", "k", "v", "r", "g"};

struct Layer {
  Norm ln1, ln2;
  struct {
    Tensor time_maa_x;                    // [D]
    std::array<Tensor, 5> time_maa;       // [D], in the order of mix_parts
    Tensor time_maa_w1;                   // [5 mix_rank, D]
    std::array<Tensor, 5> time_maa_w2;    // [D, mix_rank]
    Tensor time_decay;                    // [A]
    Tensor time_decay_w1, time_decay_w2;  // [decay_rank, D], [A, decay_rank]
    Tensor time_faaaa;                    // [A]
    Tensor receptance, key, value, gate, output;
    Norm ln_x;
    Tensor time_state;
  } att;
  ChannelMix ffn;
};

template <class Visit>
void for_each_tensor(Layer& w, const Config& c, int64_t, Visit visit) {
  for_each_norm(w.ln1, "ln1", c.n_embd, visit);
  visit(vector_spec("att.time_maa_x", c.n_embd), w.att.time_maa_x);
  visit(low_rank_spec("att.time_maa_w1", 5 * c.mix_rank, c.n_embd), w.att.time_maa_w1);
  for (size_t i = 0; i < 5; i++) {
    visit(vector_spec(std::string("att.time_maa_") + mix_parts[i], c.n_embd), w.att.time_maa[i]);
    TensorSpec part = low_rank_spec(std::string("att.time_maa_w2.") + mix_parts[i], c.n_embd, c.mix_rank);
    part.source = "att.time_maa_w2";
    part.part = static_cast<int>(i);
    visit(part, w.att.time_maa_w2[i]);
  }
  visit(matrix_spec("att.receptance.weight", c.n_att, c.n_embd), w.att.receptance);
  visit(matrix_spec("att.key.weight", c.n_att, c.n_embd), w.att.key);
  visit(matrix_spec("att.value.weight", c.n_att, c.n_embd), w.att.value);
  visit(matrix_spec("att.gate.weight", c.n_att, c.n_embd), w.att.gate);
  visit(low_rank_spec("att.time_decay_w1", c.decay_rank, c.n_embd), w.att.time_decay_w1);
  visit(low_rank_spec("att.time_decay_w2", c.n_att, c.decay_rank), w.att.time_decay_w2);
  visit(vector_spec("att.time_decay", c.n_att), w.att.time_decay);
  visit(vector_spec("att.time_faaaa", c.n_att), w.att.time_faaaa);
  for_each_norm(w.att.ln_x, "att.ln_x", c.n_att, visit);
  if (c.has_time_state) visit(time_state_spec(c), w.att.time_state);
  visit(matrix_spec("att.output.weight", c.n_embd, c.n_att), w.att.output);
  for_each_norm(w.ln2, "ln2", c.n_embd, visit);
  for_each_tensor(w.ffn, c, "time_maa_", Transform::none, visit);
}

void forward(const Layer& w, const Pass& pass);

}  // namespace rwkv::rwkv6
