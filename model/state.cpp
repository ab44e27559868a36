#include "model/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "core/error.h"
#include "core/output_file.h"
#include "core/tensor_file.h"
#include "model/checkpoint/foreign.h"
#include "model/checkpoint/state_checkpoint.h"
#include "model/model.h"
#include "model/state_file.h"

namespace rwkv {
namespace {

// Where pp of version 4 starts: so low that exp(pp - anything) is 0, as in the reference.
constexpr float rwkv4_pp = -1e30f;

std::vector<float> copy_out(Device& device, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  device.copy_out(reinterpret_cast<std::byte*>(values.data()), tensor.data, values.size() * sizeof(float));
  return values;
}

void copy_in(Device& device, const Tensor& tensor, const std::vector<float>& values) {
  device.copy_in(tensor.data, reinterpret_cast<const std::byte*>(values.data()),
                 values.size() * sizeof(float));
}

void check_fits(const StateFile& state, const Config& c, const std::string& path) {
  if (state.config && state.config->version != c.version) {
    throw Error(fmt::format(
        "{}: a session of RWKV-{}, the model is RWKV-{}: take that model, or begin another session", path,
        name_of(state.config->version), name_of(c.version)));
  }
  if (!state.config && c.version == Version::v4) {
    throw Error(fmt::format("{}: a trained initial state, and this model is RWKV-4, which has none", path));
  }
  bool fits = static_cast<int64_t>(state.layers.size()) == c.n_layer && state.heads == c.heads() &&
              state.head_size == c.head_size;
  if (state.config) fits = fits && state.config->n_embd == c.n_embd && state.config->n_att == c.n_att;
  fits = fits && (state.logits.empty() || static_cast<int64_t>(state.logits.size()) == c.n_vocab) &&
         std::ranges::all_of(state.tokens, [&](int32_t token) { return token < c.n_vocab; });
  if (fits) return;
  throw Error(
      fmt::format("{}: the state of another model: this one is RWKV-{} with {} layers, {} heads of size {}, "
                  "n_embd {}, {} tokens; the file, of {}, has {} layers, {} heads of size {}: take the model "
                  "that it was made with",
                  path, name_of(c.version), c.n_layer, c.heads(), c.head_size, c.n_embd, c.n_vocab,
                  state.source.empty() ? "an unnamed one" : printable(state.source), state.layers.size(),
                  state.heads, state.head_size));
}

StateFile read_any_state(const std::string& path, const Config& config) {
  MappedFile mapped = MappedFile::open(path);
  if (is_tensor_file(mapped.bytes())) return read_state_file(mapped);
  if (!is_checkpoint(mapped.bytes()))
    throw Error(
        fmt::format("{}: no state and no conversation, but {}", path, describe_foreign_file(mapped.bytes())));
  return read_state_checkpoint(Checkpoint::open(path), &config);
}

// What a person should know of a trained initial state.
std::string initial_note(const std::string& source, const Config& config) {
  int named = version_in_name(source), actual = name_of(config.version)[0] - '0';
  std::string note =
      fmt::format("trained state{}, {}", source.empty() ? "" : fmt::format(" '{}'", printable(source)),
                  actual == 7 ? "as RWKV-7 uses it" : "transposed for RWKV-5 and 6");
  if (named != 0 && named != actual) {
    note += fmt::format(
        "; warning: the name '{}' speaks of RWKV-{}, but the model is RWKV-{}: a state fits only the "
        "model that it was trained for",
        printable(source), named, name_of(config.version));
  }
  return note;
}

std::string note_of(const StateFile& state, const Model& model) {
  if (!state.config) return initial_note(state.source, model.config());
  if (state.source.empty()) return "the state tells neither its model nor its text";
  const std::string source = model.file().source();
  if (state.source == source) return "";
  return fmt::format("warning: the session was saved with '{}', the model is '{}'", printable(state.source),
                     printable(source));
}

}  // namespace

uint64_t state_bytes(const Config& c) {
  int64_t att = c.version == Version::v4 ? 3 * c.n_att : c.n_att * c.head_size;
  return static_cast<uint64_t>(2 * c.n_embd + att) * 4;
}

State::State(std::shared_ptr<const Model> model) : model_(std::move(model)) {
  allocate();
  reset();
}

State::State(const State& other) : model_(other.model_) {
  allocate();
  *this = other;
}

State& State::operator=(const State& other) {
  if (this == &other) return *this;
  if (model_ != other.model_) {
    model_ = other.model_;
    allocate();
  }
  for (size_t i = 0; i < buffers_.size(); i++) {
    model_->device(static_cast<int64_t>(i))
        .copy(buffers_[i].data(), other.buffers_[i].data(), buffers_[i].size());
  }
  return *this;
}

void State::allocate() {
  const Config& c = model_->config();
  buffers_.clear();
  layers_.clear();
  int64_t att = c.version == Version::v4 ? 3 * c.n_att : c.n_att * c.head_size;
  for (int64_t i = 0; i < c.n_layer; i++) {
    buffers_.push_back(model_->device(i).allocate(state_bytes(c)));
    auto* memory = reinterpret_cast<float*>(buffers_.back().data());
    LayerState layer;
    if (c.version == Version::v4) {
      layer.att = matrix_view(memory, DType::f32, 3, c.n_att);
    } else {
      layer.att = {
          buffers_.back().data(),   DType::f32, Layout::plain, 3, 0, {c.heads(), c.head_size, c.head_size},
          c.head_size * c.head_size};
    }
    layer.att_shift = vector_view(memory + att, DType::f32, c.n_embd);
    layer.ffn_shift = vector_view(memory + att + c.n_embd, DType::f32, c.n_embd);
    for (Tensor* t : {&layer.att, &layer.att_shift, &layer.ffn_shift}) t->device = model_->device(i).id();
    layers_.push_back(layer);
  }
}

void State::reset() {
  const Config& c = model_->config();
  for (int64_t i = 0; i < c.n_layer; i++) {
    const Buffer& buffer = buffers_[static_cast<size_t>(i)];
    std::vector<float> values(buffer.size() / 4, 0.0f);
    if (c.version == Version::v4) {
      std::fill_n(values.begin() + 2 * c.n_att, c.n_att, rwkv4_pp);
    } else {
      std::ranges::copy(model_->time_state(i), values.begin());
    }
    model_->device(i).copy_in(buffer.data(), reinterpret_cast<const std::byte*>(values.data()),
                              buffer.size());
  }
}

std::vector<std::byte> State::to_host() const {
  std::vector<std::byte> bytes(this->bytes());
  size_t at = 0;
  for (size_t i = 0; i < buffers_.size(); at += buffers_[i++].size()) {
    model_->device(static_cast<int64_t>(i))
        .copy_out(bytes.data() + at, buffers_[i].data(), buffers_[i].size());
  }
  return bytes;
}

void State::from_host(std::span<const std::byte> bytes) {
  if (bytes.size() != this->bytes()) throw Error("a state of another size");
  size_t at = 0;
  for (size_t i = 0; i < buffers_.size(); at += buffers_[i++].size()) {
    model_->device(static_cast<int64_t>(i))
        .copy_in(buffers_[i].data(), bytes.data() + at, buffers_[i].size());
  }
}

uint64_t State::bytes() const {
  uint64_t total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.size();
  return total;
}

void save_session(const std::string& path, const Session& session) {
  const Model& model = session.state.model();
  check_not_input(path, {model.file().file.path()});
  StateFile file;
  file.config = model.config();
  file.heads = model.config().heads();
  file.head_size = model.config().head_size;
  file.source = model.file().source();
  for (int64_t i = 0; i < model.config().n_layer; i++) {
    const LayerState& layer = session.state.layer(i);
    Device& device = model.device(i);
    file.layers.push_back(
        {copy_out(device, layer.att), copy_out(device, layer.att_shift), copy_out(device, layer.ffn_shift)});
  }
  file.tokens = session.tokens;
  file.logits = session.logits;
  file.notes = session.notes;
  write_state_file(path, file);
}

Session load_session(const std::string& path, const std::shared_ptr<const Model>& model, std::string* note) {
  StateFile file = read_any_state(path, model->config());
  check_fits(file, model->config(), path);
  Session session{State(model), std::move(file.tokens), std::move(file.logits), std::move(file.notes)};
  for (int64_t i = 0; i < model->config().n_layer; i++) {
    const LayerState& layer = session.state.layer(i);
    const LayerValues& values = file.layers[static_cast<size_t>(i)];
    copy_in(model->device(i), layer.att, values.att);
    if (!file.config) continue;  // shifts that were not trained are zero
    copy_in(model->device(i), layer.att_shift, values.att_shift);
    copy_in(model->device(i), layer.ffn_shift, values.ffn_shift);
  }
  if (note != nullptr) *note = note_of(file, *model);
  return session;
}

int version_in_name(const std::string& name) {
  std::string lower;
  for (char c : name) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  for (int v = 4; v <= 7; v++) {
    for (const std::string& mark :
         {fmt::format("x0{}0", v), fmt::format("x05{}", v - 4), fmt::format("rwkv{}", v),
          fmt::format("rwkv-{}", v), fmt::format("rwkv_{}", v)}) {
      size_t at = lower.find(mark);
      size_t end = at == std::string::npos ? at : at + mark.size();
      // "rwkv-41" is the 41st file of a training run.
      bool found = end != std::string::npos &&
                   (end == lower.size() || std::isdigit(static_cast<unsigned char>(lower[end])) == 0);
      if (found && mark.starts_with("x05")) return 5;
      if (found) return v;
    }
  }
  return 0;
}

}  // namespace rwkv
