// Puts the weights of a model file where a strategy wants them.
#pragma once

#include "core/thread_pool.h"
#include "model/model.h"

namespace rwkv {

/// For Model::load() alone.
class Loader {
 public:
  Loader(Model& model, const LoadOptions& options);
  void load();

 private:
  /// Tensors [begin, end) of the file that stay together.
  struct Group {
    size_t begin = 0, end = 0;
    Device* device = nullptr;  // null: in host memory, where a streamer finds it
  };

  [[nodiscard]] std::vector<Group> groups() const;
  [[nodiscard]] bool unchanged(const Group& group) const;
  [[nodiscard]] std::span<const std::byte> file_bytes(const Group& group) const;
  void place_on_host(const Group& group);
  const std::byte* copy_to_buffer(const std::byte* from, uint64_t bytes);
  void place_on_device(const Group& group);
  void place_streamed(const Group& group);
  void make_resident(size_t tensor);
  void bind();

  // The tensors of the group in their wanted form, one after the other; sink(offset in the group, bytes).
  template <class Sink>
  void convert(const Group& group, Sink sink);
  void advance(uint64_t bytes, const char* what = "loading weights");

  Model& model_;
  const Progress& progress_;
  bool huge_pages_;
  ThreadPool pool_;
  std::vector<ModelTensor> wanted_;
  std::vector<const std::byte*> addresses_;  // of each tensor, on its device
  std::vector<uint8_t> device_ids_;
  uint64_t done_ = 0, total_ = 0;
};

}  // namespace rwkv
