#include "model/checkpoint/state_checkpoint.h"

#include <fmt/format.h>

#include <deque>
#include <filesystem>

#include "core/error.h"
#include "core/output_file.h"
#include "model/checkpoint/detect.h"
#include "model/checkpoint/pth_writer.h"
#include "model/layers.h"

namespace rwkv {
namespace {

// [H, N, N] with the last two dimensions swapped.
std::vector<float> transposed(const std::vector<float>& in, size_t n) {
  std::vector<float> out(in.size());
  for (size_t i = 0; i < in.size(); i++) {
    size_t block = i / (n * n), row = i / n % n, col = i % n;
    out[(block * n + col) * n + row] = in[i];
  }
  return out;
}

std::vector<float> read_values(const Checkpoint& checkpoint, const SourceTensor& tensor) {
  checkpoint.check(tensor);
  std::vector<float> values(tensor.elements());
  checkpoint.read_f32(tensor, 0, values.size(), values.data());
  check_state_values(values, checkpoint.file().path(), tensor.name);
  return values;
}

StateFile read_trained(const Checkpoint& checkpoint) {
  const std::string& path = checkpoint.file().path();
  constexpr int64_t max_head = 256;
  StateFile state;
  state.source = std::filesystem::path(path).filename().string();
  for (size_t i = 0; i < checkpoint.tensors().size(); i++) {
    std::string name = layer_prefix(static_cast<int64_t>(i)) + "att.time_state";
    const SourceTensor* t = checkpoint.find(name);
    if (t == nullptr) throw Error(fmt::format("{}: tensor '{}' is missing", path, name));
    const auto& first = checkpoint.find("blocks.0.att.time_state")->sizes;
    bool right = t->sizes.size() == 3 && t->sizes == first && t->sizes[1] == t->sizes[2] && t->sizes[0] > 0 &&
                 t->sizes[1] > 0 && t->sizes[1] <= max_head;
    if (!right) {
      throw Error(
          fmt::format("{}: tensor '{}' is [{}], a state is [heads, head size, head size] in every layer",
                      path, name, fmt::join(t->sizes, ", ")));
    }
    state.heads = t->sizes[0];
    state.head_size = t->sizes[1];
    state.layers.push_back(
        {transposed(read_values(checkpoint, *t), static_cast<size_t>(state.head_size)), {}, {}});
  }
  return state;
}

// --- The package's list ---

// A tensor of it, for each layer.
struct ListPart {
  const char* name;
  std::vector<int64_t> sizes;
};

std::vector<ListPart> list_parts(const Config& c) {
  ListPart att = {"att_xx", {c.n_embd}}, ffn = {"ffn_xx", {c.n_embd}};
  if (c.version == Version::v4)
    return {att, {"att_aa", {c.n_att}}, {"att_bb", {c.n_att}}, {"att_pp", {c.n_att}}, ffn};
  return {att, {"att_kv", {c.heads(), c.head_size, c.head_size}}, ffn};
}

// att_kv of the list from ours, and ours from it.
std::vector<float> turned(const Config& c, const std::vector<float>& matrices) {
  return c.version == Version::v7 ? transposed(matrices, static_cast<size_t>(c.head_size)) : matrices;
}

StateFile read_list(const Checkpoint& checkpoint, const Config& c) {
  const std::string& path = checkpoint.file().path();
  const std::vector<SourceTensor>& tensors = checkpoint.tensors();
  const std::vector<ListPart> parts = list_parts(c);
  size_t expected = parts.size() * static_cast<size_t>(c.n_layer);
  if (tensors.size() != expected) {
    throw Error(
        fmt::format("{}: a list of {} tensors, but the state of RWKV-{} with {} layers has {}: the state of "
                    "another model, or none",
                    path, tensors.size(), name_of(c.version), c.n_layer, expected));
  }
  for (size_t i = 0; i < tensors.size(); i++) {
    const ListPart& part = parts[i % parts.size()];
    if (tensors[i].sizes == part.sizes) continue;
    throw Error(
        fmt::format("{}: tensor {} of the list is [{}], but {} of layer {} of the model is [{}]: the state "
                    "of another model, or none",
                    path, i, fmt::join(tensors[i].sizes, ", "), part.name, i / parts.size(),
                    fmt::join(part.sizes, ", ")));
  }
  StateFile state;
  state.config = c;
  state.heads = c.heads();
  state.head_size = c.head_size;
  for (size_t i = 0; i < tensors.size(); i += parts.size()) {
    LayerValues layer;
    layer.att_shift = read_values(checkpoint, tensors[i]);
    for (size_t part = 1; part + 1 < parts.size(); part++) {
      std::vector<float> values = read_values(checkpoint, tensors[i + part]);
      layer.att.insert(layer.att.end(), values.begin(), values.end());
    }
    layer.att = turned(c, layer.att);
    layer.ffn_shift = read_values(checkpoint, tensors[i + parts.size() - 1]);
    state.layers.push_back(std::move(layer));
  }
  return state;
}

void write_list(const std::string& path, const StateFile& state) {
  const Config& c = *state.config;
  const std::vector<ListPart> parts = list_parts(c);
  std::deque<std::vector<float>> matrices;  // what the tensors view
  std::vector<PthTensor> tensors;
  for (const LayerValues& layer : state.layers) {
    matrices.push_back(turned(c, layer.att));
    tensors.push_back({"", parts.front().sizes, layer.att_shift});
    size_t at = 0, size = matrices.back().size() / (parts.size() - 2);
    for (size_t part = 1; part + 1 < parts.size(); part++, at += size) {
      tensors.push_back({"", parts[part].sizes, std::span(matrices.back()).subspan(at, size)});
    }
    tensors.push_back({"", parts.back().sizes, layer.ffn_shift});
  }
  write_pth(path, tensors, PthRoot::list);
}

void write_trained(const std::string& path, const StateFile& state) {
  std::deque<std::vector<float>> matrices;
  std::vector<PthTensor> tensors;
  for (const LayerValues& layer : state.layers) {
    std::string name = layer_prefix(static_cast<int64_t>(tensors.size())) + "att.time_state";
    matrices.push_back(transposed(layer.att, static_cast<size_t>(state.head_size)));
    tensors.push_back({name, {state.heads, state.head_size, state.head_size}, matrices.back()});
  }
  write_pth(path, tensors, PthRoot::dict);
}

}  // namespace

StateFile read_state_checkpoint(const Checkpoint& checkpoint, const Config* model) {
  const std::string& path = checkpoint.file().path();
  check_claimed_size(checkpoint);
  if (!checkpoint.is_list()) {
    if (is_state_checkpoint(checkpoint)) return read_trained(checkpoint);
    throw Error(
        fmt::format("{}: not a state file: it has a tensor '{}', where a state has only "
                    "blocks.N.att.time_state",
                    path, printable(checkpoint.tensors()[0].name)));
  }
  if (model == nullptr) {
    throw Error(fmt::format(
        "{}: a list of tensors, as the Python package's states are, which does not say of which model",
        path));
  }
  return read_list(checkpoint, *model);
}

void write_state_checkpoint(const std::string& path, const StateFile& state) {
  if (state.config) {
    write_list(path, state);
  } else {
    write_trained(path, state);
  }
}

StateFile convert_state(const Checkpoint& checkpoint, const std::string& path, const Config* model,
                        const std::string& source) {
  check_not_input(path, {checkpoint.file().path()});
  StateFile state = read_state_checkpoint(checkpoint, model);
  if (checkpoint.is_list()) state.source = source;
  write_state_file(path, state);
  return state;
}

}  // namespace rwkv
