// rwkv-convert --info: what a file is, without loading it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/config.h"
#include "model/state_file.h"

namespace rwkv::apps {

struct InfoOptions {
  std::string path;
  std::string memory;                     ///< a strategy to ask the memory of, in place of all tensors
  std::optional<uint64_t> device_memory;  ///< for `memory`
  bool statistics = true;
  bool check_crc = true;
  int threads = 0;
};

/// Prints what a checkpoint, a model file or a state is, its tensors and, of a model, the memory that it
/// needs. Throws Error.
void print_info(const InfoOptions& options);

/// "model       RWKV-7, ..."
void print_row(const char* name, const std::string& value);
/// "RWKV-7, 24 layers, n_embd 1024, n_ffn 4096, head size 64"
std::string model_text(const Config& config);
/// "24 layers, 16 heads of size 64"
std::string state_text(const StateFile& state);

/// The shape of a model, in a .pth or a converted file, and the name of its checkpoint.
struct ModelIdentity {
  Config config;
  std::string source;
};
/// Reads no weight. Throws Error.
ModelIdentity identify_model(const std::string& path, bool check_crc = true);

}  // namespace rwkv::apps
