#include "test/model/checkpoint_model.h"

#include <algorithm>
#include <random>

#include "core/error.h"
#include "ops/layout.h"
#include "test/model/checkpoint/build.h"

namespace rwkv::test {
namespace {

class Maker {
 public:
  explicit Maker(const ModelShape& shape) : s_(shape), random_(shape.seed) {}

  CheckpointTensors make() {
    add("emb.weight", {s_.vocab, s_.embd});
    for (int64_t i = 0; i < s_.layers; i++) {
      prefix_ = "blocks." + std::to_string(i) + ".";
      if (i == 0) norm("ln0");
      norm("ln1");
      norm("ln2");
      time_mix(i);
      channel_mix();
    }
    prefix_.clear();
    norm("ln_out");
    add("head.weight", {s_.vocab, s_.embd});
    return std::move(tensors_);
  }

 private:
  [[nodiscard]] bool v5() const { return name_of(s_.version)[0] == '5'; }

  void add(const std::string& name, const std::vector<int64_t>& sizes, float mean = 0, float spread = 0.3f) {
    CheckpointTensor t{prefix_ + name, sizes, {}, s_.dtype};
    int64_t count = 1;
    for (int64_t size : sizes) count *= size;
    std::uniform_real_distribution<float> draw(mean - spread, mean + spread);
    for (int64_t i = 0; i < count; i++) t.values.push_back(draw(random_));
    tensors_.push_back(std::move(t));
  }
  void norm(const std::string& name) {
    add(name + ".weight", {s_.embd}, 1);
    add(name + ".bias", {s_.embd});
  }
  void mixes(const std::string& name, const std::string& parts) {
    for (char part : parts) add(name + part, {1, 1, s_.embd}, 0.5f, 0.5f);
  }

  void time_mix(int64_t layer) {
    const int64_t width = s_.embd, size = s_.head, heads = s_.version == Version::v4 ? 0 : width / size;
    if (s_.version == Version::v4) {
      add("att.time_decay", {width}, -1, 2);
      add("att.time_first", {width});
      mixes("att.time_mix_", "kvr");
    } else if (v5()) {
      std::vector<int64_t> sizes =
          s_.version == Version::v5_2 ? std::vector{heads, size} : std::vector{heads};
      add("att.time_decay", sizes, -3, 2);
      add(s_.time_first ? "att.time_first" : "att.time_faaaa", sizes);
      mixes("att.time_mix_", s_.version == Version::v5_0 ? "kvr" : "kvrg");
    } else if (s_.version == Version::v6) {
      constexpr int64_t mix_rank = 3, decay_rank = 5;
      mixes("att.time_maa_", "xwkvrg");
      add("att.time_maa_w1", {width, 5 * mix_rank});
      add("att.time_maa_w2", {5, mix_rank, width});
      add("att.time_decay", {1, 1, width}, -3, 2);
      add("att.time_decay_w1", {width, decay_rank});
      add("att.time_decay_w2", {decay_rank, width});
      add("att.time_faaaa", {heads, size});
    } else {
      time_mix7(layer, width, heads, size);
    }
    for (const char* name : {"receptance", "key", "value", "output"})
      add(std::string("att.") + name + ".weight", {width, width});
    if (s_.version == Version::v5_1 || s_.version == Version::v5_2 || s_.version == Version::v6)
      add("att.gate.weight", {width, width});
    if (s_.version != Version::v4) norm("att.ln_x");
    if (s_.time_state) add("att.time_state", {heads, size, size});
  }

  void time_mix7(int64_t layer, int64_t width, int64_t heads, int64_t size) {
    struct LowRank {
      char part;
      int64_t rank;
      bool bias;
    };
    mixes("att.x_", "rwkvag");
    for (auto [part, rank, bias] : {LowRank{'w', 4, true}, {'a', 5, true}, {'v', 3, true}, {'g', 7, false}}) {
      if (part == 'v' && layer == 0 && !s_.first_residual) continue;
      std::string name = std::string("att.") + part;
      if (bias) add(name + "0", {1, 1, width});
      add(name + "1", {width, rank});
      add(name + "2", {rank, width});
    }
    add("att.k_k", {1, 1, width}, 0.85f);
    add("att.k_a", {1, 1, width}, 1);
    add("att.r_k", {heads, size});
  }

  void channel_mix() {
    const int64_t width = s_.embd;
    if (s_.version == Version::v7) {
      mixes("ffn.x_", "k");
    } else {
      mixes(s_.version == Version::v6 ? "ffn.time_maa_" : "ffn.time_mix_", "kr");
      add("ffn.receptance.weight", {width, width});
    }
    add("ffn.key.weight", {s_.ffn, width});
    add("ffn.value.weight", {width, s_.ffn});
  }

  ModelShape s_;
  std::mt19937 random_;
  std::string prefix_;
  CheckpointTensors tensors_;
};

std::string storage_class(DType dtype) {
  return dtype == DType::f32 ? "FloatStorage" : dtype == DType::f16 ? "HalfStorage" : "BFloat16Storage";
}

}  // namespace

CheckpointTensors make_checkpoint(const ModelShape& shape) { return Maker(shape).make(); }

CheckpointTensors make_state_checkpoint(int64_t layers, int64_t heads, int64_t head_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> draw(-1, 1);
  CheckpointTensors tensors;
  for (int64_t i = 0; i < layers; i++) {
    CheckpointTensor t{
        "blocks." + std::to_string(i) + ".att.time_state", {heads, head_size, head_size}, {}, DType::f32};
    for (int64_t k = 0; k < heads * head_size * head_size; k++) t.values.push_back(draw(random));
    tensors.push_back(std::move(t));
  }
  return tensors;
}

CheckpointTensor& tensor_of(CheckpointTensors& tensors, const std::string& name) {
  auto found = std::ranges::find(tensors, name, &CheckpointTensor::name);
  if (found == tensors.end()) throw Error("the test has no tensor " + name);
  return *found;
}

void remove_tensor(CheckpointTensors& tensors, const std::string& name) {
  const CheckpointTensor* place = &tensor_of(tensors, name);
  tensors.erase(tensors.begin() + (place - tensors.data()));
}

void resize_tensor(CheckpointTensors& tensors, const std::string& name, const std::vector<int64_t>& sizes) {
  CheckpointTensor& t = tensor_of(tensors, name);
  t.sizes = sizes;
  size_t count = 1;
  for (int64_t size : sizes) count *= static_cast<size_t>(size);
  t.values.assign(count, 0.5f);
}

void write_checkpoint(const std::string& path, const CheckpointTensors& tensors) {
  std::vector<std::pair<std::string, std::string>> entries;
  std::vector<std::string> storages;
  for (const CheckpointTensor& t : tensors) {
    PickledTensor tensor;
    tensor.elements = static_cast<int64_t>(t.values.size());
    tensor.sizes = t.sizes;
    tensor.strides.assign(t.sizes.size(), 1);
    for (size_t i = t.sizes.size(); i-- > 1;) tensor.strides[i - 1] = tensor.strides[i] * t.sizes[i];
    tensor.key = std::to_string(storages.size());
    tensor.storage = storage_class(t.dtype);
    entries.emplace_back(t.name, pickled_tensor(tensor));
    std::string bytes(t.values.size() * size_of(t.dtype), '\0');
    from_f32(t.values.data(), t.dtype, tensor.elements, reinterpret_cast<std::byte*>(bytes.data()));
    storages.push_back(std::move(bytes));
  }
  make_zip(checkpoint_records(pickle_of(pickled_dict(entries)), storages)).write(path);
}

}  // namespace rwkv::test
