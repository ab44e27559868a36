// What strategies take of the memory of the host and of CUDA devices, be they here or not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/strategy.h"
#include "model/weights.h"

namespace rwkv::apps {

struct MemoryQuestion {
  Config config;
  std::string strategy;                   ///< or auto: what it would choose
  Strategy made_for;                      ///< of the file, which auto keeps to in its precision
  std::optional<uint64_t> device_memory;  ///< free on each CUDA device; without it: as this machine has
  std::vector<StoredForm> stored;         ///< of the file's tensors; empty for a .pth
};

/// A table of the usual strategies for a converted model: one conversation, prompts in chunks of the
/// programs' default length. Of the question only the model counts.
void print_usual_strategies(const MemoryQuestion& question);

/// What one strategy takes of each device, beside what is free. Throws Error, with what fits instead, when
/// that does not, and for what is no strategy.
void print_memory(const MemoryQuestion& question);

}  // namespace rwkv::apps
