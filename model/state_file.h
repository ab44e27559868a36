// Trained initial states on their own; sessions are in model/state.h.
#pragma once

#include <string>

#include "model/checkpoint/pth.h"
#include "model/state.h"

namespace rwkv {

struct StateShape {
  int64_t layers, heads, head_size;
};

/// Writes the state file of a trained initial state (blocks.N.att.time_state). It fits RWKV-5, 6 and 7 models
/// of its shape alike: checkpoints have [head, value, key] in all of them, and the file [head, key, value].
/// Throws Error.
StateShape convert_state(const Checkpoint& checkpoint, const std::string& path);

}  // namespace rwkv
