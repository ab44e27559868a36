// The memory of an RNN: everything a model knows about the text so far, of a fixed size.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/tensor_file.h"
#include "model/arch/pass.h"

namespace rwkv {

class Model;

/// Bytes of one layer's state.
uint64_t state_bytes(const Config& config);

/// A state of one model. Copies are deep: a copy goes on its own way. It may outlive nothing it needs: the
/// model is kept alive.
class State {
 public:
  /// The state before any text: zero, or the initial state that was trained into the model.
  explicit State(std::shared_ptr<const Model> model);
  State(const State& other);
  State& operator=(const State& other);
  State(State&&) noexcept = default;
  State& operator=(State&&) noexcept = default;
  ~State() = default;

  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] LayerState& layer(int64_t index) { return layers_[static_cast<size_t>(index)]; }
  [[nodiscard]] const LayerState& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }

  /// As before any text.
  void reset();
  /// All of it in host memory, wherever the layers are; and back, into a state of the same model.
  [[nodiscard]] std::vector<std::byte> to_host() const;
  void from_host(std::span<const std::byte> bytes);
  [[nodiscard]] uint64_t bytes() const;

 private:
  void allocate();

  std::shared_ptr<const Model> model_;
  std::vector<Buffer> buffers_;  // one per layer, on the layer's device
  std::vector<LayerState> layers_;
};

/// A conversation that can be resumed: the state, the tokens that led to it and the logits that follow.
struct Session {
  State state;
  std::vector<int32_t> tokens;
  std::vector<float> logits;  ///< empty, or n_vocab
  std::string notes = {};     ///< what else a program wants to find again (model/text/conversation_notes.h)
};

/// Writes a state file (model/FORMAT.md). Throws Error.
void save_session(const std::string& path, const Session& session);

/// Reads a state: a saved session, a trained initial state (a converted file or a .pth with
/// blocks.N.att.time_state, whose shifts are zero), or a .pth with the Python package's list, which has
/// neither tokens nor logits. Throws Error when it is of another shape or version, is damaged or holds NaN.
/// `note` receives what a person should know: which orientation was used, a clash of names.
Session load_session(const std::string& path, const std::shared_ptr<const Model>& model,
                     std::string* note = nullptr);

/// The version that a file's name speaks of ("x060", "rwkv6", "RWKV-5", ...): 4 to 7, or 0.
int version_in_name(const std::string& name);

}  // namespace rwkv
