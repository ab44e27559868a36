// A loaded model: the weights of every layer in the form its strategy wants, and the devices they are for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/layers.h"
#include "model/model_file.h"
#include "model/streamer.h"
#include "ops/device.h"

namespace rwkv {

/// Called while something long goes on: what, how much of how much.
using Progress = std::function<void(const std::string& what, uint64_t done, uint64_t total)>;

struct LoadOptions {
  std::string strategy;  ///< empty: the file's
  int threads = 0;       ///< of the CPU; 0: one per core
  int64_t chunk = 256;   ///< of the executor to come: whether everything fits is checked before loading
  /// Big matrices of the CPU's layers are copied into huge pages, which mapped files may lack: decoding is
  /// faster, loading takes a moment, and other processes cannot share the memory.
  bool huge_pages = false;
  Progress progress;  ///< weights in another form than the file's are converted while loading
};

/// Immutable, so that any number of executors on any threads may share it. Weights for the CPU whose form the
/// file already has stay in the mapped file, and so do streamed ones where the driver allows it.
class Model {
 public:
  /// Throws Error, also when the weights do not fit into the memory of the devices.
  static std::shared_ptr<const Model> load(ModelFile file, const LoadOptions& options = {});

  [[nodiscard]] const ModelFile& file() const { return file_; }
  [[nodiscard]] const Config& config() const { return file_.config; }
  [[nodiscard]] const Strategy& strategy() const { return strategy_; }
  [[nodiscard]] const std::vector<LayerPlan>& plan() const { return plan_; }
  /// Weights of streamed layers lie in host memory; only a Streamer may compute with them.
  [[nodiscard]] const Weights& weights() const { return weights_; }
  /// The streamed weights in memory that is ready for copies, and their parts; empty without.
  [[nodiscard]] const std::byte* streamed_image() const { return streamed_image_; }
  [[nodiscard]] const std::vector<StreamedPart>& streamed_parts() const { return streamed_parts_; }

  /// The host first, then the CUDA devices of the strategy.
  [[nodiscard]] const std::vector<std::unique_ptr<Device>>& devices() const { return devices_; }
  /// The device of a layer; the head is layer n_layer.
  [[nodiscard]] Device& device(int64_t layer) const { return *layer_devices_[static_cast<size_t>(layer)]; }
  /// The initial state that was trained into the model, [H, N, N] for a layer, in host memory; empty without
  /// one.
  [[nodiscard]] std::span<const float> time_state(int64_t layer) const;

  /// Bytes of the weights that a token multiplies with or gathers: all but the embedding.
  [[nodiscard]] uint64_t weight_bytes_per_token() const { return weight_bytes_; }
  /// Bytes that were converted into memory because the file has them in another form.
  [[nodiscard]] uint64_t converted_bytes() const { return converted_bytes_; }

 private:
  friend class Loader;

  void open_devices(int threads);

  ModelFile file_;
  Strategy strategy_;
  std::vector<LayerPlan> plan_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Device*> layer_devices_;
  std::vector<Buffer> buffers_;  // of the devices: they go first
  Weights weights_;
  const std::byte* streamed_image_ = nullptr;
  std::vector<StreamedPart> streamed_parts_;
  uint64_t weight_bytes_ = 0, converted_bytes_ = 0;
};

}  // namespace rwkv
