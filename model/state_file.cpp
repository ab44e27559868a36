#include "model/state_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/crc32.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/version.h"
#include "model/layers.h"
#include "model/model_file.h"

namespace rwkv {
namespace {

constexpr const char* kind_key = "rwkv.kind";
constexpr const char* state_kind = "state";
constexpr const char* notes_key = "rwkv.conversation";
constexpr const char* damaged = "damaged, or made by another program";

// A tensor of a layer: its name behind "blocks.N.", its sizes and its place.
struct Part {
  const char* name;
  std::vector<int64_t> sizes;
  std::vector<float> LayerValues::*values;
};

std::vector<Part> parts_of(const StateFile& state) {
  Part matrices = {"att.time_state", {state.heads, state.head_size, state.head_size}, &LayerValues::att};
  if (!state.config) return {matrices};
  const Config& c = *state.config;
  if (c.version == Version::v4) matrices = {"att.state", {3, c.n_att}, &LayerValues::att};
  return {matrices,
          {"att.shift", {c.n_embd}, &LayerValues::att_shift},
          {"ffn.shift", {c.n_embd}, &LayerValues::ffn_shift}};
}

// --- Reading ---

void check_header(const TensorFileHeader& header, const std::string& path) {
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

// Takes tensors out of a file and counts them.
class Reader {
 public:
  Reader(const MappedFile& file, const TensorFileHeader& header) : file_(file), header_(header) {}

  // Without `sizes`: a vector of any length.
  template <class T>
  std::vector<T> take(const TensorEntry& entry, DType dtype, const std::vector<int64_t>* sizes = nullptr) {
    bool fits = entry.dtype == dtype && (sizes == nullptr ? entry.sizes.size() == 1 : entry.sizes == *sizes);
    if (!fits) {
      throw Error(fmt::format(
          "{}: tensor '{}' is {} [{}], where a state of its shape has {}{}: {}", path(),
          printable(entry.name), name_of(entry.dtype), fmt::join(entry.sizes, ", "), name_of(dtype),
          sizes == nullptr ? " in one dimension" : fmt::format(" [{}]", fmt::join(*sizes, ", ")), damaged));
    }
    taken_++;
    std::vector<T> values(entry.bytes / sizeof(T));
    if (!values.empty()) {  // an empty vector may have no memory
      std::memcpy(values.data(), file_.bytes().data() + header_.data_begin + entry.offset, entry.bytes);
    }
    return values;
  }
  std::vector<float> take_values(const std::string& name, const std::vector<int64_t>& sizes) {
    const TensorEntry* entry = header_.find(name);
    if (entry == nullptr) throw Error(fmt::format("{}: tensor '{}' is missing: {}", path(), name, damaged));
    std::vector<float> values = take<float>(*entry, DType::f32, &sizes);
    check_state_values(values, path(), name);
    return values;
  }
  void check_nothing_left() const {
    if (taken_ == header_.entries.size()) return;
    throw Error(fmt::format("{}: it has {} tensors, a state of its shape has {}: {}", path(),
                            header_.entries.size(), taken_, damaged));
  }
  [[nodiscard]] const std::string& path() const { return file_.path(); }

 private:
  const MappedFile& file_;
  const TensorFileHeader& header_;
  size_t taken_ = 0;
};

void read_tokens(Reader& reader, const TensorFileHeader& header, StateFile& state) {
  int64_t n_vocab = state.config->n_vocab;
  if (const TensorEntry* entry = header.find("tokens")) {
    state.tokens = reader.take<int32_t>(*entry, DType::i32);
  }
  for (int32_t token : state.tokens) {
    if (token >= 0 && token < n_vocab) continue;
    throw Error(
        fmt::format("{}: token {} is none of the model's {}: {}", reader.path(), token, n_vocab, damaged));
  }
  if (header.find("logits") != nullptr) state.logits = reader.take_values("logits", {n_vocab});
}

// What a file without the model's metadata says by itself.
void read_shape(const TensorFileHeader& header, const std::string& path, StateFile& state) {
  const TensorEntry* first = header.find("blocks.0.att.time_state");
  if (first == nullptr || first->sizes.size() != 3) {
    throw Error(
        fmt::format("{}: has no tensor 'blocks.0.att.time_state' [heads, key, value]: {}", path, damaged));
  }
  state.heads = first->sizes[0];
  state.head_size = first->sizes[1];
  state.layers.resize(header.entries.size());
}

// --- Writing ---

template <class T>
void add(Metadata& metadata, std::vector<TensorEntry>& entries,
         std::vector<std::span<const std::byte>>& contents, std::string name, DType dtype,
         std::vector<int64_t> sizes, const std::vector<T>& values) {
  TensorEntry entry;
  entry.name = std::move(name);
  entry.dtype = dtype;
  entry.sizes = std::move(sizes);
  contents.push_back(std::as_bytes(std::span(values)));
  metadata.emplace_back(checksum_key(entry.name), checksum_text(crc32(contents.back())));
  entries.push_back(std::move(entry));
}

}  // namespace

bool is_state_header(const TensorFileHeader& header) {
  const std::string* kind = header.metadata_value(kind_key);
  return kind != nullptr && *kind == state_kind;
}

StateFile read_state_file(const MappedFile& file) {
  const std::string& path = file.path();
  TensorFileHeader header = parse_tensor_file(file.bytes(), path);
  check_header(header, path);
  verify_checksums(header, file.bytes(), path);
  StateFile state;
  if (const std::string* source = header.metadata_value("rwkv.source")) state.source = *source;
  if (const std::string* notes = header.metadata_value(notes_key); notes != nullptr) state.notes = *notes;
  if (header.metadata_value("rwkv.version") != nullptr) {
    state.config = read_config(header, path);
    state.heads = state.config->heads();
    state.head_size = state.config->head_size;
    state.layers.resize(static_cast<size_t>(state.config->n_layer));
  } else {
    read_shape(header, path, state);
  }
  Reader reader(file, header);
  const std::vector<Part> parts = parts_of(state);
  for (size_t i = 0; i < state.layers.size(); i++) {
    for (const Part& part : parts) {
      state.layers[i].*part.values =
          reader.take_values(layer_prefix(static_cast<int64_t>(i)) + part.name, part.sizes);
    }
  }
  if (state.config) read_tokens(reader, header, state);
  reader.check_nothing_left();
  return state;
}

void write_state_file(const std::string& path, const StateFile& state) {
  Metadata metadata = {{model_format_key, model_format},
                       {kind_key, state_kind},
                       {"rwkv.source", state.source},
                       {"rwkv.converter", std::string("rwkv ") + version}};
  if (state.config) {
    for (auto& pair : config_metadata(*state.config)) metadata.push_back(std::move(pair));
  }
  if (!state.notes.empty()) metadata.emplace_back(notes_key, state.notes);
  std::vector<TensorEntry> entries;
  std::vector<std::span<const std::byte>> contents;
  const std::vector<Part> parts = parts_of(state);
  for (size_t i = 0; i < state.layers.size(); i++) {
    for (const Part& part : parts) {
      add(metadata, entries, contents, layer_prefix(static_cast<int64_t>(i)) + part.name, DType::f32,
          part.sizes, state.layers[i].*part.values);
    }
  }
  auto length = [](const auto& values) { return std::vector{static_cast<int64_t>(values.size())}; };
  if (state.config) {
    add(metadata, entries, contents, "tokens", DType::i32, length(state.tokens), state.tokens);
  }
  if (!state.logits.empty()) {
    add(metadata, entries, contents, "logits", DType::f32, length(state.logits), state.logits);
  }
  std::string header = make_tensor_file_header(metadata, entries);
  OutputFile out(path);
  out.write(std::as_bytes(std::span(header)));
  for (std::span<const std::byte> bytes : contents) out.write(bytes);
  out.commit();
}

void check_state_values(std::span<const float> values, const std::string& path, const std::string& tensor) {
  if (std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) return;
  throw Error(
      fmt::format("{}: tensor '{}' holds NaN or infinite values: the state is useless", path, tensor));
}

}  // namespace rwkv
