#include "model/model_file.h"

#include <fmt/format.h>

#include <charconv>
#include <unordered_map>

#include "core/crc32.h"
#include "core/error.h"

namespace rwkv {
namespace {

std::string required(const TensorFileHeader& header, const std::string& key, const std::string& path) {
  const std::string* value = header.metadata_value(key);
  if (value == nullptr) {
    throw Error(
        fmt::format("{}: its metadata lack '{}': not a model file of this program; make one with "
                    "rwkv-convert",
                    path, key));
  }
  return *value;
}

int64_t number(const TensorFileHeader& header, const std::string& key, const std::string& path) {
  std::string text = required(header, key, path);
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) {
    throw Error(fmt::format("{}: metadata '{}' is '{}', not a number", path, key, printable(text)));
  }
  return value;
}

void check_format(const TensorFileHeader& header, const std::string& path) {
  std::string format = required(header, model_format_key, path);
  if (format != model_format) {
    throw Error(
        fmt::format("{}: written in format {}, this program reads format {}; convert the checkpoint "
                    "again, or use a newer program",
                    path, printable(format), model_format));
  }
  if (std::string kind = required(header, "rwkv.kind", path); kind != "model") {
    throw Error(fmt::format("{}: a {}, where a model is expected", path, printable(kind)));
  }
}

// Whether a matrix could be coded depends on its numbers, so the file says it.
void find_coded(ModelFile& f) {
  for (ModelTensor& t : f.tensors) {
    ModelTensor smaller = t;
    smaller.form = coded_form(t.spec, t.form);
    if (smaller.form == t.form) continue;
    const std::string* layout = f.header.metadata_value(layout_key(t.name));
    if (layout != nullptr && *layout == describe(smaller)) t = std::move(smaller);
  }
}

void check_entries(const ModelFile& f, const std::string& path) {
  size_t expected = f.tensors.size() + (f.header.find(vocabulary_tensor) == nullptr ? 0 : 1);
  for (size_t i = 0; i < f.tensors.size(); i++) {
    TensorEntry want = entry_of(f.tensors[i]);
    if (i >= f.header.entries.size()) throw Error(fmt::format("{}: tensor '{}' is missing", path, want.name));
    const TensorEntry& have = f.header.entries[i];
    if (have.name != want.name || have.dtype != want.dtype || have.sizes != want.sizes) {
      throw Error(
          fmt::format("{}: tensor {} should be '{}' {} [{}], but is '{}' {} [{}]: damaged, or made by "
                      "another program; convert the checkpoint again",
                      path, i, want.name, name_of(want.dtype), fmt::join(want.sizes, ", "),
                      printable(have.name), name_of(have.dtype), fmt::join(have.sizes, ", ")));
    }
  }
  if (f.header.entries.size() != expected) {
    throw Error(fmt::format("{}: it has {} tensors, a model of its shape has {}", path,
                            f.header.entries.size(), expected));
  }
  if (expected > f.tensors.size() && f.header.entries.back().name != vocabulary_tensor) {
    throw Error(fmt::format("{}: the vocabulary is not the last tensor", path));
  }
  if (f.header.data_begin % 64 != 0) {
    throw Error(fmt::format("{}: tensors are not aligned: written by another program", path));
  }
}

}  // namespace

std::vector<ModelTensor> model_tensors(const Config& config, const std::vector<LayerPlan>& plan) {
  std::vector<ModelTensor> tensors;
  Weights weights;
  for_each_tensor(
      weights, config, [&](const TensorSpec& spec, const std::string& name, int64_t layer, Tensor&) {
        tensors.push_back(
            {spec, name, layer, stored_form(spec, plan[static_cast<size_t>(layer)], config.weights)});
      });
  return tensors;
}

std::vector<ModelTensor> model_tensors(const Config& config, const std::vector<LayerPlan>& plan,
                                       std::span<const StoredForm> stored) {
  std::vector<ModelTensor> tensors = model_tensors(config, plan);
  for (size_t i = 0; i < stored.size(); i++) {
    ModelTensor& t = tensors[i];
    const LayerPlan& layer = plan[static_cast<size_t>(t.layer)];
    const DType type = stored[i].dtype;
    if (is_exact(t.spec, layer)) t.form = stored_form(t.spec, layer, is_quantized(type) ? DType::f32 : type);
    if (const StoredForm smaller = coded_form(t.spec, t.form); stored[i] == smaller) t.form = smaller;
  }
  return tensors;
}

TensorEntry entry_of(const ModelTensor& t) {
  // What the container has no type for: bytes hold two int4, and three of them two coded weights.
  const bool bytes = t.form.dtype == DType::i4 || t.form.layout == Layout::cpu_coded;
  const DType dtype = bytes ? DType::u8 : t.form.dtype;
  TensorEntry entry;
  entry.name = t.name;
  entry.dtype = dtype;
  entry.sizes = {t.form.units, t.form.unit_bytes / bytes_of(dtype, 1)};
  entry.bytes = static_cast<uint64_t>(t.form.bytes());
  return entry;
}

std::string describe(const ModelTensor& t) {
  std::string_view layout = name_of(t.form.layout);
  if (t.spec.role == Role::vector)
    return fmt::format("{} {} [{}]", layout, name_of(t.form.dtype), t.spec.rows);
  return fmt::format("{} {} [{}, {}]", layout, name_of(t.form.dtype), t.spec.rows, t.spec.cols);
}

ModelFile ModelFile::open(const std::string& path) { return open(MappedFile::open(path)); }

ModelFile ModelFile::open(MappedFile file) {
  ModelFile f;
  f.file = std::move(file);
  const std::string& path = f.file.path();
  f.header = parse_tensor_file(f.file.bytes(), path);
  check_format(f.header, path);
  f.config = read_config(f.header, path);
  try {
    f.strategy = Strategy::parse(required(f.header, "rwkv.strategy", path));
    f.plan = f.strategy.plan(f.config.layers());
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", path, e.what()));
  }
  f.tensors = model_tensors(f.config, f.plan);
  find_coded(f);
  check_entries(f, path);
  return f;
}

std::span<const std::byte> ModelFile::bytes_of(std::string_view name) const {
  const TensorEntry* entry = header.find(name);
  if (entry == nullptr) return {};
  return file.bytes().subspan(header.data_begin + entry->offset, entry->bytes);
}

std::span<const std::byte> ModelFile::vocabulary() const { return bytes_of(vocabulary_tensor); }

std::string ModelFile::source() const {
  const std::string* name = header.metadata_value("rwkv.source");
  return name == nullptr ? "" : *name;
}

void verify_checksums(const TensorFileHeader& header, std::span<const std::byte> file,
                      const std::string& path, const std::function<void(uint64_t, uint64_t)>& progress) {
  uint64_t total = file.size() - header.data_begin, done = 0;
  std::unordered_map<std::string_view, std::string_view> checksums(header.metadata.begin(),
                                                                   header.metadata.end());
  constexpr uint64_t piece = 16 << 20;
  for (const TensorEntry& entry : header.entries) {
    auto want = checksums.find(checksum_key(entry.name));
    if (want == checksums.end()) {
      throw Error(fmt::format("{}: no checksum for tensor '{}'", path, printable(entry.name)));
    }
    uint32_t crc = 0;
    for (uint64_t at = 0; at < entry.bytes; at += piece) {
      uint64_t count = std::min(piece, entry.bytes - at);
      crc = crc32(file.subspan(header.data_begin + entry.offset + at, count), crc);
      done += count;
      if (progress) progress(done, total);
    }
    if (checksum_text(crc) != want->second) {
      throw Error(
          fmt::format("{}: tensor '{}' is damaged (checksum {} instead of {}): convert the checkpoint "
                      "again, or take another copy of the file",
                      path, printable(entry.name), checksum_text(crc), printable(want->second)));
    }
  }
}

Metadata config_metadata(const Config& config) {
  Metadata metadata = {{"rwkv.version", std::string(name_of(config.version))},
                       {"rwkv.weights", std::string(name_of(config.weights))},
                       {"rwkv.time_state", config.has_time_state ? "1" : "0"}};
  for_each_size(config, [&](const char* name, int64_t value) {
    metadata.emplace_back(std::string("rwkv.") + name, std::to_string(value));
  });
  return metadata;
}

namespace {

/// Files that do not say it have fp32 wherever their strategy does.
DType read_weights(const TensorFileHeader& header, const std::string& path) {
  const std::string* value = header.metadata_value("rwkv.weights");
  if (value == nullptr) return DType::f32;
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    if (*value == name_of(type)) return type;
  }
  throw Error(
      fmt::format("{}: metadata 'rwkv.weights' is '{}', not fp32, fp16 or bf16", path, printable(*value)));
}

}  // namespace

Config read_config(const TensorFileHeader& header, const std::string& path) {
  Config config;
  std::string version = required(header, "rwkv.version", path);
  auto known = version_of(version);
  if (!known) throw Error(fmt::format("{}: RWKV version {} is not supported", path, printable(version)));
  config.version = *known;
  int64_t time_state = number(header, "rwkv.time_state", path);
  if (time_state != 0 && time_state != 1) {
    throw Error(fmt::format("{}: metadata 'rwkv.time_state' is {}, not 0 or 1", path, time_state));
  }
  config.has_time_state = time_state == 1;
  config.weights = read_weights(header, path);
  for_each_size(config, [&](const char* name, int64_t& value) {
    value = number(header, std::string("rwkv.") + name, path);
  });
  check_config(config, path);
  return config;
}

std::string layout_key(const std::string& tensor) { return "layout." + tensor; }

std::string checksum_key(const std::string& tensor) { return "crc32." + tensor; }

std::string checksum_text(uint32_t crc) { return fmt::format("{:08x}", crc); }

}  // namespace rwkv
