// Runs models in tests.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/executor.h"
#include "test/support.h"

namespace rwkv::test {

/// A checkpoint converted into memory for a strategy.
std::shared_ptr<const Model> load_checkpoint(const std::string& path, const std::string& strategy,
                                             int threads = 1);
/// A model file; with an empty strategy its own.
std::shared_ptr<const Model> load_file(const std::string& path, const std::string& strategy = "",
                                       int threads = 1);

/// The logits after every token, fed to `state` in calls of `chunk` tokens.
std::vector<float> run(const std::shared_ptr<const Model>& model, std::span<const int32_t> tokens,
                       int64_t chunk, State& state);
/// From the state before any text.
std::vector<float> run(const std::shared_ptr<const Model>& model, std::span<const int32_t> tokens,
                       int64_t chunk = 1);

/// Everything in a state, layer by layer: att_shift, att, ffn_shift.
std::vector<std::vector<float>> values_of(const State& state);
bool same_bits(const State& a, const State& b);

}  // namespace rwkv::test
