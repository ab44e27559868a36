// State files: saved conversations and trained initial states. model/FORMAT.md describes them.
#include "model/state_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/crc32.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/version.h"
#include "model/checkpoint/detect.h"
#include "model/model.h"

namespace rwkv {
namespace {

constexpr const char* kind_key = "rwkv.kind";
constexpr const char* state_kind = "state";
constexpr const char* notes_key = "rwkv.conversation";

// A state tensor and its name in the file.
struct StatePart {
  std::string name;
  Tensor tensor;
};

std::vector<StatePart> parts_of(const State& state, int64_t layer) {
  const LayerState& s = state.layer(layer);
  std::string prefix = layer_prefix(layer);
  bool v4 = state.model().config().version == Version::v4;
  return {{prefix + (v4 ? "att.state" : "att.time_state"), s.att},
          {prefix + "att.shift", s.att_shift},
          {prefix + "ffn.shift", s.ffn_shift}};
}

struct OutputPart {
  TensorEntry entry;
  std::vector<std::byte> bytes;
};

OutputPart make_part(std::string name, DType dtype, std::vector<int64_t> sizes,
                     std::vector<std::byte> bytes) {
  OutputPart part;
  part.entry.name = std::move(name);
  part.entry.dtype = dtype;
  part.entry.sizes = std::move(sizes);
  part.bytes = std::move(bytes);
  return part;
}

void write_container(const std::string& path, Metadata metadata, const std::vector<OutputPart>& parts) {
  std::vector<TensorEntry> entries;
  for (const OutputPart& part : parts) {
    entries.push_back(part.entry);
    metadata.emplace_back(checksum_key(part.entry.name), checksum_text(crc32(part.bytes)));
  }
  std::string header = make_tensor_file_header(metadata, entries);
  OutputFile out(path);
  out.write(std::as_bytes(std::span(header)));
  for (const OutputPart& part : parts) out.write(part.bytes);
  out.commit();
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

void check_finite(std::span<const float> values, const std::string& path, const std::string& name) {
  if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
    throw Error(
        fmt::format("{}: tensor '{}' holds NaN or infinite values: the state is useless", path, name));
  }
}

// [H, N, N] with the last two dimensions swapped.
std::vector<float> transposed(const std::vector<float>& in, size_t n) {
  std::vector<float> out(in.size());
  for (size_t i = 0; i < in.size(); i++) {
    size_t block = i / (n * n), row = i / n % n, col = i % n;
    out[(block * n + col) * n + row] = in[i];
  }
  return out;
}

std::string wrong_shape(const std::string& path, const Config& c) {
  return fmt::format(
      "{}: the state of another model: this one is RWKV-{} with {} layers, {} heads of size {}, "
      "n_embd {}",
      path, name_of(c.version), c.n_layer, c.heads(), c.head_size, c.n_embd);
}

// Reads a tensor of exactly these sizes into `out`; false when there is none of that name.
bool read_part(const TensorFileHeader& header, const MappedFile& file, const StatePart& part,
               const Config& config, std::vector<float>& out) {
  const TensorEntry* entry = header.find(part.name);
  if (entry == nullptr) return false;
  std::span<const int64_t> want(part.tensor.sizes.data(), part.tensor.rank);
  if (entry->dtype != DType::f32 || !std::ranges::equal(entry->sizes, want)) {
    throw Error(wrong_shape(file.path(), config));
  }
  out.resize(entry->bytes / 4);
  std::memcpy(out.data(), file.bytes().data() + header.data_begin + entry->offset, entry->bytes);
  check_finite(out, file.path(), part.name);
  return true;
}

template <class T>
std::vector<T> read_vector(const TensorFileHeader& header, const MappedFile& file, const char* name,
                           DType dtype) {
  const TensorEntry* entry = header.find(name);
  if (entry == nullptr) return {};
  if (entry->dtype != dtype || entry->sizes.size() != 1) {
    throw Error(fmt::format("{}: tensor '{}' is not a vector of {}", file.path(), name, name_of(dtype)));
  }
  std::vector<T> values(entry->bytes / sizeof(T));
  if (!values.empty()) {  // an empty vector may have no memory
    std::memcpy(values.data(), file.bytes().data() + header.data_begin + entry->offset, entry->bytes);
  }
  return values;
}

Session read_container(const MappedFile& file, const std::shared_ptr<const Model>& model) {
  const Config& config = model->config();
  TensorFileHeader header = parse_tensor_file(file.bytes(), file.path());
  check_state_header(header, file.path());
  constexpr size_t parts_of_layer = 3, other_parts = 2;
  if (header.entries.size() > parts_of_layer * static_cast<size_t>(config.n_layer) + other_parts) {
    throw Error(wrong_shape(file.path(), config));
  }
  verify_checksums(header, file.bytes(), file.path());
  const std::string* version = header.metadata_value("rwkv.version");
  if (version != nullptr && *version != name_of(config.version)) {
    throw Error(fmt::format("{}: a session of RWKV-{}, the model is RWKV-{}", file.path(),
                            printable(*version), name_of(config.version)));
  }
  bool session = version != nullptr;  // an initial state fits every version of its shape
  Session result{State(model), {}, {}};
  size_t used = 0;
  std::vector<float> values;
  for (int64_t i = 0; i < config.n_layer; i++) {
    for (const StatePart& part : parts_of(result.state, i)) {
      bool found = read_part(header, file, part, config, values);
      bool optional = !session && part.name.ends_with(".shift");
      if (!found && !optional) throw Error(wrong_shape(file.path(), config));
      if (!found) continue;
      used++;
      model->device(i).copy_in(part.tensor.data, reinterpret_cast<const std::byte*>(values.data()),
                               values.size() * 4);
    }
  }
  if (const std::string* notes = header.metadata_value(notes_key); notes != nullptr) result.notes = *notes;
  result.tokens = read_vector<int32_t>(header, file, "tokens", DType::i32);
  result.logits = read_vector<float>(header, file, "logits", DType::f32);
  used += (header.find("tokens") != nullptr ? 1 : 0) + (header.find("logits") != nullptr ? 1 : 0);
  if (used != header.entries.size()) throw Error(wrong_shape(file.path(), config));
  if (!result.logits.empty()) {
    if (static_cast<int64_t>(result.logits.size()) != config.n_vocab) {
      throw Error(wrong_shape(file.path(), config));
    }
    check_finite(result.logits, file.path(), "logits");
  }
  for (int32_t token : result.tokens) {
    if (token < 0 || token >= config.n_vocab) throw Error(wrong_shape(file.path(), config));
  }
  return result;
}

// The initial state of every layer, [head][key][value].
std::vector<std::vector<float>> read_checkpoint_states(const Checkpoint& checkpoint) {
  if (!is_state_checkpoint(checkpoint)) {
    throw Error(
        fmt::format("{}: not a state file: it has a tensor '{}', where a state has only "
                    "blocks.N.att.time_state",
                    checkpoint.file().path(), printable(checkpoint.tensors()[0].name)));
  }
  check_claimed_size(checkpoint);
  constexpr int64_t max_head = 256;
  std::vector<std::vector<float>> layers;
  for (size_t i = 0; i < checkpoint.tensors().size(); i++) {
    std::string name = layer_prefix(static_cast<int64_t>(i)) + "att.time_state";
    const SourceTensor* t = checkpoint.find(name);
    if (t == nullptr) throw Error(fmt::format("{}: tensor '{}' is missing", checkpoint.file().path(), name));
    const auto& first = checkpoint.find("blocks.0.att.time_state")->sizes;
    bool state = t->sizes.size() == 3 && t->sizes == first && t->sizes[1] == t->sizes[2] && t->sizes[0] > 0 &&
                 t->sizes[1] > 0 && t->sizes[1] <= max_head;
    if (!state) {
      throw Error(
          fmt::format("{}: tensor '{}' is [{}], a state is [heads, head size, head size] in every layer",
                      checkpoint.file().path(), name, fmt::join(t->sizes, ", ")));
    }
    checkpoint.check(*t);
    std::vector<float> values(t->elements());
    checkpoint.read_f32(*t, 0, values.size(), values.data());
    check_finite(values, checkpoint.file().path(), name);
    layers.push_back(transposed(values, static_cast<size_t>(t->sizes[1])));
  }
  return layers;
}

Session read_checkpoint(const std::string& path, const std::shared_ptr<const Model>& model) {
  const Config& config = model->config();
  Checkpoint checkpoint = Checkpoint::open(path);
  auto layers = read_checkpoint_states(checkpoint);
  Session session{State(model), {}, {}};
  const auto& sizes = checkpoint.find("blocks.0.att.time_state")->sizes;
  bool fits = config.version != Version::v4 && static_cast<int64_t>(layers.size()) == config.n_layer &&
              sizes[0] == config.heads() && sizes[1] == config.head_size;
  if (!fits) {
    throw Error(fmt::format("{}; the file has {} layers, {} heads of size {}", wrong_shape(path, config),
                            layers.size(), sizes[0], sizes[1]));
  }
  for (int64_t i = 0; i < config.n_layer; i++) {
    const auto& values = layers[static_cast<size_t>(i)];
    model->device(i).copy_in(session.state.layer(i).att.data,
                             reinterpret_cast<const std::byte*>(values.data()), values.size() * 4);
  }
  return session;
}

std::string note_for(const std::string& source, const Config& config) {
  int named = version_in_name(source), actual = name_of(config.version)[0] - '0';
  std::string note = actual == 7 ? "the state is [head, value, key], as RWKV-7 uses it"
                                 : "the state is [head, value, key], transposed for RWKV-5 and 6";
  if (named != 0 && named != actual) {
    note += fmt::format(
        "; warning: the name '{}' speaks of RWKV-{}, but the model is RWKV-{}: a state fits only the "
        "model that it was trained for",
        source, named, name_of(config.version));
  }
  return note;
}

}  // namespace

void check_state_header(const TensorFileHeader& header, const std::string& path) {
  const std::string *format = header.metadata_value(model_format_key),
                    *kind = header.metadata_value(kind_key);
  if (format == nullptr || kind == nullptr) {
    throw Error(
        fmt::format("{}: not a state file of this program; convert a .pth state with rwkv-convert", path));
  }
  if (*format != model_format) {
    throw Error(fmt::format("{}: written in format {}, this program reads format {}", path,
                            printable(*format), model_format));
  }
  if (*kind != state_kind) {
    throw Error(fmt::format("{}: a {}, where a state file is expected", path, printable(*kind)));
  }
}

void save_session(const std::string& path, const Session& session) {
  const Model& model = session.state.model();
  check_not_input(path, {model.file().file.path()});
  Metadata metadata = {{model_format_key, model_format},
                       {kind_key, state_kind},
                       {"rwkv.source", model.file().source()},
                       {"rwkv.converter", std::string("rwkv ") + version}};
  for (auto& pair : config_metadata(model.config())) metadata.push_back(std::move(pair));
  if (!session.notes.empty()) metadata.emplace_back(notes_key, session.notes);
  std::vector<OutputPart> parts;
  for (int64_t i = 0; i < model.config().n_layer; i++) {
    for (const StatePart& part : parts_of(session.state, i)) {
      std::vector<std::byte> bytes(static_cast<size_t>(part.tensor.elements()) * 4);
      model.device(i).copy_out(bytes.data(), part.tensor.data, bytes.size());
      parts.push_back(make_part(part.name, DType::f32,
                                {part.tensor.sizes.begin(), part.tensor.sizes.begin() + part.tensor.rank},
                                std::move(bytes)));
    }
  }
  parts.push_back(make_part("tokens", DType::i32, {static_cast<int64_t>(session.tokens.size())},
                            bytes_of(session.tokens)));
  if (!session.logits.empty()) {
    parts.push_back(make_part("logits", DType::f32, {static_cast<int64_t>(session.logits.size())},
                              bytes_of(session.logits)));
  }
  write_container(path, std::move(metadata), parts);
}

Session load_session(const std::string& path, const std::shared_ptr<const Model>& model, std::string* note) {
  MappedFile file = MappedFile::open(path);
  bool container = file.bytes().size() > 9 && static_cast<char>(file.bytes()[8]) == '{';
  std::string source = std::filesystem::path(path).filename().string();
  Config config = model->config();
  if (container) {
    TensorFileHeader header = parse_tensor_file(file.bytes(), path);
    bool initial = header.metadata_value("rwkv.version") == nullptr;
    if (const std::string* name = header.metadata_value("rwkv.source"); name != nullptr) source = *name;
    if (note != nullptr && initial) *note = note_for(source, config);
    if (note != nullptr && !initial && source != model->file().source()) {
      *note = fmt::format("warning: the session was saved with '{}', the model is '{}'", printable(source),
                          printable(model->file().source()));
    }
    return read_container(file, model);
  }
  if (note != nullptr) *note = note_for(source, config);
  return read_checkpoint(path, model);
}

StateShape convert_state(const Checkpoint& checkpoint, const std::string& path) {
  check_not_input(path, {checkpoint.file().path()});
  auto layers = read_checkpoint_states(checkpoint);
  const auto& sizes = checkpoint.find("blocks.0.att.time_state")->sizes;
  Metadata metadata = {{model_format_key, model_format},
                       {kind_key, state_kind},
                       {"rwkv.source", std::filesystem::path(checkpoint.file().path()).filename().string()},
                       {"rwkv.converter", std::string("rwkv-convert ") + version}};
  std::vector<OutputPart> parts;
  for (size_t i = 0; i < layers.size(); i++) {
    parts.push_back(make_part(layer_prefix(static_cast<int64_t>(i)) + "att.time_state", DType::f32, sizes,
                              bytes_of(layers[i])));
  }
  write_container(path, std::move(metadata), parts);
  return {static_cast<int64_t>(layers.size()), sizes[0], sizes[1]};
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
