#include "model/checkpoint/detect.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "core/checked.h"
#include "core/error.h"
#include "model/layers.h"

namespace rwkv {
namespace {

constexpr std::string_view time_state_suffix = ".att.time_state";

struct Foreign {
  std::string_view mark;  // part of a tensor's name
  const char* what;
};

// Checkpoints that are not taken, by what betrays them.
constexpr Foreign foreign_kinds[] = {
    {"lora_A", "a LoRA adapter without its model: merge it into the model first"},
    {"lora_B", "a LoRA adapter without its model: merge it into the model first"},
    {".lora.", "a LoRA adapter without its model: merge it into the model first"},
    {"s_emb",
     "an RWKV-7 with DeepEmbed (rwkv7a, rwkv7b), which is not supported yet: use a plain rwkv7 model"},
    {"tiny_", "an experimental RWKV-4a, which is not supported: use a plain RWKV-4 model"},
    {"model.layers.", "in the layout of Hugging Face or fla: use the original .pth of the model's author"},
    {"rwkv.blocks.", "in the layout of Hugging Face: use the original .pth of the model's author"},
    {"model.embeddings", "in the layout of Hugging Face or fla: use the original .pth of the model's author"},
    {"transformer.h.", "not an RWKV model"},
};

// Prefixes of trainers and wrappers.
constexpr std::string_view prefixes[] = {"_forward_module.", "module.", "model."};

int64_t layer_of(std::string_view name) {
  if (!name.starts_with("blocks.")) return -1;
  int64_t index = -1;
  auto [end, code] = std::from_chars(name.data() + 7, name.data() + name.size(), index);
  constexpr int64_t absurd = 1 << 20;
  bool whole = code == std::errc() && end != name.data() + name.size() && *end == '.';
  return whole && index < absurd ? index : -1;
}

std::vector<int64_t> without_ones(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> kept;
  std::copy_if(sizes.begin(), sizes.end(), std::back_inserter(kept), [](int64_t n) { return n != 1; });
  return kept;
}

}  // namespace

bool is_state_checkpoint(const Checkpoint& checkpoint) {
  return std::all_of(checkpoint.tensors().begin(), checkpoint.tensors().end(), [](const SourceTensor& t) {
    return layer_of(t.name) >= 0 && t.name.ends_with(time_state_suffix);
  });
}

void check_claimed_size(const Checkpoint& checkpoint) {
  constexpr uint64_t sharing = 4;  // tensors may share storages, within reason
  uint64_t claimed = 0, size = checkpoint.file().bytes().size();
  for (const SourceTensor& t : checkpoint.tensors()) {
    claimed = checked_add(claimed, checked_mul(t.elements(), size_of(t.dtype), "tensor"), "tensors");
    if (claimed / sharing > size) {
      throw Error(
          fmt::format("{}: its tensors claim far more than its {} bytes, up to '{}' alone: no honest "
                      "checkpoint repeats elements so often",
                      checkpoint.file().path(), size, printable(t.name)));
    }
  }
}

ModelCheckpoint::ModelCheckpoint(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  if (is_state_checkpoint(checkpoint)) fail("a state file, where a model is expected");
  if (checkpoint.is_list()) {
    fail("holds a list of tensors, as the Python package's states are, where a model is expected");
  }
  check_claimed_size(checkpoint);
  for (const SourceTensor& t : checkpoint.tensors()) {
    for (const Foreign& kind : foreign_kinds) {
      if (t.name.find(kind.mark) != std::string::npos) {
        fail(fmt::format("{} (it has a tensor '{}')", kind.what, printable(t.name)));
      }
    }
  }
  for (std::string_view prefix : prefixes) {
    if (find("emb.weight") == nullptr && checkpoint.find(std::string(prefix) + "emb.weight") != nullptr) {
      prefix_ = prefix;
    }
  }
  detect();
  check_config(config_, checkpoint.file().path());
  check_tensors();
}

void ModelCheckpoint::fail(const std::string& what) const {
  throw Error(fmt::format("{}: {}", checkpoint_.file().path(), what));
}

const SourceTensor* ModelCheckpoint::find(std::string_view name) const {
  return checkpoint_.find(prefix_ + std::string(name));
}

const SourceTensor& ModelCheckpoint::require(const std::string& name) const {
  const SourceTensor* tensor = find(name);
  if (tensor == nullptr) {
    fail(fmt::format("tensor '{}' is missing: not a complete RWKV model of versions 4 to 7", name));
  }
  return *tensor;
}

int64_t ModelCheckpoint::size(const std::string& name, size_t dimension) const {
  const SourceTensor& tensor = require(name);
  if (tensor.sizes.size() <= dimension) {
    fail(fmt::format("tensor '{}' has {} dimensions, too few", name, tensor.sizes.size()));
  }
  return tensor.sizes[dimension];
}

void ModelCheckpoint::detect() {
  Config& c = config_;
  c.n_vocab = size("emb.weight", 0);
  c.n_embd = size("emb.weight", 1);
  bool v6 = false, gate = false, ln_x = false;
  for (const SourceTensor& t : checkpoint_.tensors()) {
    std::string_view name = std::string_view(t.name).substr(t.name.starts_with(prefix_) ? prefix_.size() : 0);
    c.n_layer = std::max(c.n_layer, layer_of(name) + 1);
    ln_x = ln_x || name.find("ln_x") != std::string::npos;
    gate = gate || name.find("gate.weight") != std::string::npos;
    v6 = v6 || name.find("time_maa") != std::string::npos;
    c.has_time_state = c.has_time_state || name.ends_with(time_state_suffix);
  }
  c.n_att = size("blocks.0.att.key.weight", 0);
  c.n_ffn = size("blocks.0.ffn.key.weight", 0);
  auto heads = [&](const std::string& name) {
    int64_t count = size(name, 0);
    if (count < 1) fail(fmt::format("tensor '{}' is empty", name));
    if (c.n_att % count != 0) {
      fail(fmt::format("tensor '{}' has {} heads, which do not divide the width {}", name, count, c.n_att));
    }
    c.head_size = c.n_att / count;
  };
  if (find("blocks.0.att.r_k") != nullptr) {
    c.version = Version::v7;
    heads("blocks.0.att.r_k");
  } else if (v6) {
    c.version = Version::v6;
    heads("blocks.0.att.time_faaaa");
  } else if (ln_x) {
    heads("blocks.0.att.time_decay");
    const auto& decay = require("blocks.0.att.time_decay").sizes;
    bool per_channel = decay.size() > 1 && decay[1] > 1;
    c.version = per_channel ? Version::v5_2 : gate ? Version::v5_1 : Version::v5_0;
  }
  detect_ranks();
}

void ModelCheckpoint::detect_ranks() {
  Config& c = config_;
  if (c.version == Version::v6) {
    c.mix_rank = size("blocks.0.att.time_maa_w2", 1);
    c.decay_rank = size("blocks.0.att.time_decay_w1", 1);
  }
  if (c.version == Version::v7) {
    c.decay_rank = size("blocks.0.att.w1", 1);
    c.a_rank = size("blocks.0.att.a1", 1);
    c.g_rank = size("blocks.0.att.g1", 1);
    if (c.n_layer > 1) c.v_rank = size("blocks.1.att.v1", 1);
  }
}

ModelCheckpoint::Source ModelCheckpoint::source_of(const TensorSpec& spec, const std::string& name) const {
  std::string wanted = name;
  if (!spec.source.empty()) wanted = name.substr(0, name.size() - spec.name.size()) + spec.source;
  constexpr std::string_view faaaa = "time_faaaa";
  if (wanted.ends_with(faaaa) && find(wanted) == nullptr) {
    std::string first = wanted.substr(0, wanted.size() - faaaa.size()) + "time_first";
    if (find(first) != nullptr) return {find(first), true};
  }
  return {&require(wanted), false};
}

void ModelCheckpoint::check_sizes(const TensorSpec& spec, const std::string& name,
                                  const SourceTensor& t) const {
  std::vector<int64_t> want;
  bool fits = false;
  if (spec.role == Role::vector) {
    std::vector<int64_t> have = without_ones(t.sizes);
    want = {spec.rows};
    int64_t heads = std::max<int64_t>(config_.heads(), 1), size = spec.rows / heads;
    bool by_heads = config_.version == Version::v5_0 || config_.version == Version::v5_1;
    bool repeated = by_heads && (name.ends_with("time_decay") || name.ends_with("time_faaaa"));
    if (repeated) want = {heads};
    if (spec.transform == Transform::transposed_heads) want = {heads, config_.head_size, config_.head_size};
    fits = have == without_ones(want) ||
           (!repeated && spec.rows == config_.n_att && have == without_ones({heads, size}));
  } else {
    want = spec.transposed ? std::vector{spec.cols, spec.rows} : std::vector{spec.rows, spec.cols};
    if (spec.part >= 0) want.insert(want.begin(), int64_t{static_cast<int64_t>(rwkv6::mix_parts.size())});
    fits = t.sizes == want;
  }
  if (!fits) {
    fail(fmt::format("tensor '{}' is [{}], but a model of RWKV-{} with n_embd {} needs [{}]",
                     printable(t.name), fmt::join(t.sizes, ", "), name_of(config_.version), config_.n_embd,
                     fmt::join(want, ", ")));
  }
}

void ModelCheckpoint::check_tensors() {
  std::set<std::string_view> used;
  for (const char* name : {"blocks.0.ln0.weight", "blocks.0.ln0.bias"}) {
    const SourceTensor& t = require(name);
    check_sizes(vector_spec(name, config_.n_embd), name, t);
    used.insert(t.name);
  }
  Weights weights;
  std::set<DType> types;
  for_each_tensor(weights, config_, [&](const TensorSpec& spec, const std::string& name, int64_t, Tensor&) {
    const SourceTensor& t = *source_of(spec, name).tensor;
    check_sizes(spec, name, t);
    used.insert(t.name);
    if (spec.role != Role::vector && spec.role != Role::table) types.insert(t.dtype);
  });
  if (types.size() == 1) config_.weights = *types.begin();
  for (const SourceTensor& t : checkpoint_.tensors()) {
    // The first layer's value residual is in some files, and used by none.
    std::string_view name = std::string_view(t.name).substr(std::min(prefix_.size(), t.name.size()));
    bool unused = config_.version == Version::v7 &&
                  (name == "blocks.0.att.v0" || name == "blocks.0.att.v1" || name == "blocks.0.att.v2");
    if (!unused && !used.contains(t.name)) {
      fail(fmt::format("tensor '{}' does not belong to a model of RWKV-{}: a variant that is not supported",
                       printable(t.name), name_of(config_.version)));
    }
  }
}

}  // namespace rwkv
