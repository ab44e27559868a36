// Channel mixing of versions 4, 5 and 6, which are alike:
//   x += sigmoid(mixed_r R^T) * (relu(mixed_k K^T)^2 V^T)
#pragma once

#include "model/arch/pass.h"

namespace rwkv {

struct ChannelMix {
  const Norm& norm;
  const Tensor &mix_k, &mix_r;
  const Tensor &receptance, &key, &value;
};

void channel_mix(const ChannelMix& w, const Pass& pass);

}  // namespace rwkv
