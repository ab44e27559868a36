// Which model a checkpoint holds.
#pragma once

#include <string>
#include <string_view>

#include "model/checkpoint/pth.h"
#include "model/config.h"
#include "model/weights.h"

namespace rwkv {

/// A checkpoint seen as a model: tensors by the names that RWKV uses, whatever prefix a trainer put before
/// them.
class ModelCheckpoint {
 public:
  /// Detects the version and shape from names and sizes, as the reference does, and checks that exactly the
  /// tensors of that model are there, in its sizes. Throws Error: a missing, extra or wrong tensor is named,
  /// and what is not a model of versions 4 to 7 by its kind (LoRA, other layouts, experimental variants, a
  /// state file).
  explicit ModelCheckpoint(const Checkpoint& checkpoint);

  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }
  /// nullptr when there is none.
  [[nodiscard]] const SourceTensor* find(std::string_view name) const;
  /// The tensor that `spec`, with this full name in the model file, is made from. For time_faaaa of versions
  /// 5 and 6 that may be time_first, whose exp() it is: then `exponential` is set.
  struct Source {
    const SourceTensor* tensor;
    bool exponential;
  };
  [[nodiscard]] Source source_of(const TensorSpec& spec, const std::string& name) const;

 private:
  void detect();
  void detect_ranks();
  void check_tensors();  ///< and notes their type
  void check_sizes(const TensorSpec& spec, const std::string& name, const SourceTensor& tensor) const;
  [[nodiscard]] const SourceTensor& require(const std::string& name) const;
  [[nodiscard]] int64_t size(const std::string& name, size_t dimension) const;
  [[noreturn]] void fail(const std::string& what) const;

  const Checkpoint& checkpoint_;
  std::string prefix_;
  Config config_;
};

/// True when every tensor is a trained initial state: blocks.N.att.time_state.
bool is_state_checkpoint(const Checkpoint& checkpoint);

/// Throws Error when the tensors claim several times the file's size, as strides of 0 allow: converting it
/// would fill memory or disk.
void check_claimed_size(const Checkpoint& checkpoint);

}  // namespace rwkv
