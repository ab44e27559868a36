// Memory for the activations of a forward pass.
#pragma once

#include "model/arch/pass.h"
#include "ops/device.h"

namespace rwkv {

/// How many tokens a forward pass takes at once. Every layer works on chunks; a span of several chunks goes
/// through a layer before the next one, so that a layer that must be fetched is fetched once for all of them.
struct Extent {
  int64_t chunk = 0, span = 0;
};

uint64_t activation_bytes(const Config& config, const Extent& extent);
/// Views of all members for the whole extent, in activation_bytes() of a device's memory.
Activations place_activations(const Config& config, const Extent& extent, std::byte* memory, uint8_t device);
/// The views for `tokens` tokens of a chunk that begins at token `at` of the span.
Activations chunk_of(const Activations& whole, const Config& config, int64_t at, int64_t tokens);

/// Rows of logits that a device computes at once: a few megabytes.
int64_t logit_rows(const Config& config, const Extent& extent);
/// What the operators of a model must be able to do.
Ops::Limits operator_limits(const Config& config, const Extent& extent);

}  // namespace rwkv
