// Runs a model over tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "model/model.h"
#include "model/state.h"

namespace rwkv {

/// Owns the activations and the operators' threads: one thread at a time may use an executor; several
/// executors may share a model. After construction forward() allocates nothing.
class Executor {
 public:
  /// `chunk`: the most tokens that go through a layer at once; longer inputs are cut.
  explicit Executor(std::shared_ptr<const Model> model, int64_t chunk = 256);

  /// Moves the state over the tokens. `logits` receives those after the last token (n_vocab values), those
  /// after every token (n_vocab values each), or nothing, by its size. A token's logits do not depend on how
  /// tokens are cut into calls and chunks. Throws Error for a token outside the vocabulary, before anything
  /// is changed. `stop` is asked between chunks: true ends the call early. Returns the number of tokens that
  /// the state has moved over.
  int64_t forward(std::span<const int32_t> tokens, State& state, std::span<float> logits,
                  const std::function<bool(int64_t done)>& stop = {});

  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] int64_t chunk() const { return chunk_; }

 private:
  void check_tokens(std::span<const int32_t> tokens) const;
  void run_chunk(std::span<const int32_t> tokens, State& state, std::span<float> logits);

  std::shared_ptr<const Model> model_;
  int64_t chunk_;
  std::unique_ptr<Ops> ops_;
  Buffer memory_;
  Activations full_;  // views for the longest chunk
};

}  // namespace rwkv
