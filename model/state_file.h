// State files in host memory, without a model. model/FORMAT.md describes them; load_session() and
// save_session() of model/state.h bring them to a model's devices and back.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor_file.h"
#include "model/config.h"

namespace rwkv {

/// One layer's state.
struct LayerValues {
  std::vector<float> att;        ///< [heads, key, value]; version 4: [3, n_att]: aa, bb, pp
  std::vector<float> att_shift;  ///< [n_embd]; empty in a trained initial state
  std::vector<float> ffn_shift;  ///< likewise
};

/// A saved conversation, or a trained initial state.
struct StateFile {
  std::optional<Config> config;      ///< the model's; a trained initial state fits any of its shape
  int64_t heads = 0, head_size = 0;  ///< of every layer; 0 for version 4
  std::string source;                ///< the checkpoint of the model, or of the trained state; "" if unknown
  std::vector<LayerValues> layers;
  std::vector<int32_t> tokens;  ///< those that led to the state, as far as they are known
  std::vector<float> logits;    ///< those that follow: empty, or n_vocab
  std::string notes;            ///< what the program that saved it wants to find again
};

/// Whether a container is a state file, of this format or another.
bool is_state_header(const TensorFileHeader& header);

/// Reads a whole file. Throws Error when anything is missing, left over, damaged, or of another size than the
/// file itself says, and for NaN.
StateFile read_state_file(const MappedFile& file);

/// The file appears when it is complete. Throws Error.
void write_state_file(const std::string& path, const StateFile& state);

/// Throws Error, which names the tensor, for values that are not finite.
void check_state_values(std::span<const float> values, const std::string& path, const std::string& tensor);

}  // namespace rwkv
