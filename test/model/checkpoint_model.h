// Checkpoints of any version and shape with random weights, to take apart and put together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "model/config.h"

namespace rwkv::test {

struct CheckpointTensor {
  std::string name;
  std::vector<int64_t> sizes;
  std::vector<float> values;
  DType dtype = DType::f32;
};
using CheckpointTensors = std::vector<CheckpointTensor>;

struct ModelShape {
  Version version = Version::v7;
  int64_t layers = 2, embd = 16, ffn = 24, vocab = 20;
  int64_t head = 8;  ///< ignored by version 4
  DType dtype = DType::f32;
  bool first_residual = false;  ///< version 7: blocks.0.att.v0, v1, v2, which nothing uses
  bool time_first = false;      ///< version 5: in place of time_faaaa
  bool time_state = false;      ///< a merged initial state
  uint32_t seed = 1;
};

constexpr Version all_versions[] = {Version::v4,   Version::v5_0, Version::v5_1,
                                    Version::v5_2, Version::v6,   Version::v7};

/// What the files of the model's authors hold, by their names and sizes.
CheckpointTensors make_checkpoint(const ModelShape& shape);
/// blocks.N.att.time_state.
CheckpointTensors make_state_checkpoint(int64_t layers, int64_t heads, int64_t head_size, uint32_t seed = 1);

/// Throws Error when there is none.
CheckpointTensor& tensor_of(CheckpointTensors& tensors, const std::string& name);
void remove_tensor(CheckpointTensors& tensors, const std::string& name);
/// Gives the tensor other sizes, and as many values of 0.5.
void resize_tensor(CheckpointTensors& tensors, const std::string& name, const std::vector<int64_t>& sizes);

/// A .pth file.
void write_checkpoint(const std::string& path, const CheckpointTensors& tensors);

}  // namespace rwkv::test
