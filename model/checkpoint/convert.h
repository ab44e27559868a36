// From a checkpoint to a model file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "model/checkpoint/detect.h"
#include "model/model_file.h"

namespace rwkv {

struct ConvertOptions {
  std::string strategy;   ///< empty: fp32, fp16 or bf16 on the CPU, as the checkpoint's embedding is
  MappedFile vocabulary;  ///< put into the file; empty: none
  int threads = 0;        ///< 0: one per core
  std::function<void(uint64_t done, uint64_t total)> progress;  ///< bytes examined and written
};

struct ConvertReport {
  Config config;
  Strategy strategy;
  std::vector<LayerPlan> plan;
  uint64_t bytes_read = 0, bytes_written = 0;
  double seconds = 0;
  std::vector<std::string> warnings;  ///< NaN and infinite weights, a vocabulary that does not fit
};

/// What a checkpoint is converted for without a strategy: its own precision on the CPU.
Strategy default_strategy(const ModelCheckpoint& model);

/// Writes a model file; needs memory for a few rows of one tensor beside the mapped checkpoint. The file
/// appears when it is complete. Throws Error.
ConvertReport convert_model(const Checkpoint& checkpoint, const std::string& path,
                            const ConvertOptions& options);

/// The same into memory: for running a checkpoint as it is.
ModelFile convert_in_memory(const Checkpoint& checkpoint, const ConvertOptions& options);

}  // namespace rwkv
