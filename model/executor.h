// Runs a model over tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "model/activations.h"
#include "model/model.h"
#include "model/state.h"

namespace rwkv {

/// How many tokens a model takes at once when chunks have this length: with streamed layers a span has
/// several chunks, as many as make computing a layer about as long as fetching it, in no more memory than a
/// slot.
Extent extent_of(const Config& config, const std::vector<LayerPlan>& plan, int64_t chunk);

/// Owns the activations, the operators' queues and what streaming needs: one thread at a time may use an
/// executor; several executors may share a model. After construction forward() allocates nothing.
class Executor {
 public:
  /// `chunk`: the most tokens that an operator takes at once; longer inputs are cut.
  explicit Executor(std::shared_ptr<const Model> model, int64_t chunk = 256);

  /// Moves the state over the tokens. `logits` receives those after the last token (n_vocab values), those
  /// after every token (n_vocab values each), or nothing, by its size. How tokens are cut into calls and
  /// chunks changes no bit, but that a token alone may be rounded otherwise than among others (Ops::matmul).
  /// Throws Error for a token outside the vocabulary, before anything is changed. `stop` is asked between
  /// spans (chunks, when nothing is streamed): true ends the call early. Returns the number of tokens that
  /// the state has moved over.
  int64_t forward(std::span<const int32_t> tokens, State& state, std::span<float> logits,
                  const std::function<bool(int64_t done)>& stop = {});

  /// Adds what operators take from now on to `times`, which slows them down a little; nullptr ends it.
  void measure(OperatorTimes* times) {
    for (Stage& s : stages_) s.ops->measure(times);
  }

  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] const std::shared_ptr<const Model>& shared_model() const { return model_; }
  [[nodiscard]] int64_t chunk() const { return extent_.chunk; }

 private:
  // What runs on one device.
  struct Stage {
    Device* device = nullptr;
    Buffer memory;
    Activations all;
    std::unique_ptr<Ops> ops;  // goes first: its queue may still use the memory
    [[nodiscard]] bool host() const { return device->id() == 0; }
  };
  // Tokens on their way through the layers.
  struct Span {
    State& state;
    int64_t tokens = 0;
    std::span<float> logits;
  };

  void open_stages();
  void check_tokens(std::span<const int32_t> tokens) const;
  [[nodiscard]] Stage& stage(int64_t layer) { return stages_[layer_stage_[static_cast<size_t>(layer)]]; }
  void run_span(std::span<const int32_t> tokens, State& state, std::span<float> logits);
  [[nodiscard]] bool head_is_layer(const Span& span);
  [[nodiscard]] int64_t run_end(int64_t begin, int64_t layers) const;
  void run_layers(int64_t begin, int64_t end, const Span& span);
  void run_layer(int64_t layer, const Span& span);
  void move(int64_t layer, int64_t tokens);
  void run_head(const Span& span);
  void compute_head(Stage& here, const Tensor& x, const Tensor& logits);
  [[nodiscard]] Tensor logits_on_device(int64_t rows) const;

  std::shared_ptr<const Model> model_;
  Extent extent_;
  std::vector<Stage> stages_;
  std::vector<size_t> layer_stage_;
  Buffer logits_memory_;                // on the head's device, when that is not the host
  std::unique_ptr<Streamer> streamer_;  // after the stages, whose queue it uses
  std::vector<const void*> key_;
};

}  // namespace rwkv
