#include "model/arch/channel_mix.h"

namespace rwkv {

void channel_mix(const ChannelMix& w, const Norm& norm, const Pass& pass) {
  const auto& [ops, state, s] = pass;
  const Mix mixes[] = {{w.mix_k, s.mixed[0]}, {w.mix_r, s.mixed[1]}};
  ops.token_shift({s.x, norm, state.ffn_shift, s.normalized, mixes});
  const Product inner[] = {{s.mixed[1], w.receptance, s.receptance, Epilogue::sigmoid},
                           {s.mixed[0], w.key, s.ffn, Epilogue::relu_squared}};
  ops.matmul(inner);
  const Product outer[] = {{s.ffn, w.value, s.x, Epilogue::gated_add, {}, s.receptance}};
  ops.matmul(outer);
}

}  // namespace rwkv
