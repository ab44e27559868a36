// Trained initial states on their own; sessions are in model/state.h.
#pragma once

#include <string>

#include "core/tensor_file.h"
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

/// Throws Error when the metadata do not say that it is a state file of this format.
void check_state_header(const TensorFileHeader& header, const std::string& path);

}  // namespace rwkv
