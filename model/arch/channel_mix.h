// Channel mixing of versions 4, 5 and 6, which are alike:
//   x += sigmoid(mixed_r R^T) * (relu(mixed_k K^T)^2 V^T)
#pragma once

#include <string>

#include "model/arch/pass.h"
#include "model/weights.h"

namespace rwkv {

struct ChannelMix {
  Tensor mix_k, mix_r;  // [D]
  Tensor receptance, key, value;
};

/// `mix` is what the names of the mixes begin with: time_mix_ or time_maa_.
template <class Visit>
void for_each_tensor(ChannelMix& w, const Config& c, const std::string& mix, Transform transform,
                     Visit& visit) {
  visit(vector_spec("ffn." + mix + "k", c.n_embd, transform), w.mix_k);
  visit(vector_spec("ffn." + mix + "r", c.n_embd, transform), w.mix_r);
  visit(matrix_spec("ffn.receptance.weight", c.n_embd, c.n_embd), w.receptance);
  visit(matrix_spec("ffn.key.weight", c.n_ffn, c.n_embd), w.key);
  visit(rows_spec("ffn.value.weight", c.n_embd, c.n_ffn), w.value);
}

void channel_mix(const ChannelMix& w, const Norm& norm, const Pass& pass);

}  // namespace rwkv
