#include "tools/info.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>

#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "core/error.h"
#include "model/checkpoint/convert.h"
#include "model/checkpoint/state_checkpoint.h"
#include "model/model_file.h"
#include "model/statistics.h"
#include "tools/memory_report.h"

namespace rwkv::apps {
namespace {

struct Row {
  std::string name;
  std::string type;
  std::vector<int64_t> sizes;
  uint64_t bytes = 0;
  std::function<Statistics(ThreadPool&)> statistics;  // empty: has none
};

std::string statistics_text(const Statistics& s) {
  std::string text = s.finite == 0 ? fmt::format(" {:>11} {:>11} {:>11} {:>11}", "-", "-", "-", "-")
                                   : fmt::format(" {:>11.4g} {:>11.4g} {:>11.4g} {:>11.4g}", s.min, s.max,
                                                 s.mean(), s.rms());
  if (s.nan > 0) text += fmt::format("  {} NaN", s.nan);
  if (s.infinite > 0) text += fmt::format("  {} infinite", s.infinite);
  return text;
}

void print_tensors(const std::vector<Row>& rows, const InfoOptions& options) {
  size_t width = 6;
  uint64_t total = 0, done = 0;
  for (const Row& row : rows) {
    width = std::max(width, printable(row.name).size());
    total += row.bytes;
  }
  fmt::print("\n{:<{}} {:<5} {:>16} {:>12}", "tensor", width, "type", "shape", "bytes");
  if (options.statistics) fmt::print(" {:>11} {:>11} {:>11} {:>11}", "min", "max", "mean", "rms");
  fmt::print("\n");
  ThreadPool pool(options.threads);
  ProgressLine progress;
  for (const Row& row : rows) {
    std::string line = fmt::format("{:<{}} {:<5} {:>16} {:>12}", printable(row.name), width, row.type,
                                   fmt::format("[{}]", fmt::join(row.sizes, ", ")), row.bytes);
    if (options.statistics && row.statistics) line += statistics_text(row.statistics(pool));
    progress.clear();
    fmt::print("{}\n", line);
    done += row.bytes;
    progress.show("reading tensors", done, total);
  }
}

// --- Rows above the table ---

void print_file(const std::string& path, uint64_t bytes, const char* kind) {
  print_row("file", fmt::format("{}, {}", path, human_bytes(bytes)));
  print_row("kind", kind);
}

void print_config(const Config& c) {
  print_row("model", model_text(c));
  std::string ranks;
  auto add = [&](const char* name, int64_t size) {
    if (size > 0) ranks += fmt::format("{}{} {}", ranks.empty() ? "" : ", ", name, size);
  };
  add("token shift", c.mix_rank);
  add("decay", c.decay_rank);
  add("a", c.a_rank);
  add("v", c.v_rank);
  add("g", c.g_rank);
  if (!ranks.empty()) print_row("low rank", ranks);
  if (c.has_time_state) print_row("state", "a trained initial state is part of the model");
}

void print_count(uint64_t parameters, const std::set<std::string_view>& types) {
  print_row("parameters", fmt::format("{} ({})", parameters, fmt::join(types, ", ")));
}

// --- .pth files ---

std::vector<Row> rows_of(const Checkpoint& checkpoint) {
  std::vector<Row> rows;
  for (const SourceTensor& t : checkpoint.tensors()) {
    rows.push_back({t.name, std::string(name_of(t.dtype)), t.sizes, t.elements() * size_of(t.dtype),
                    [&](ThreadPool& pool) { return statistics_of(checkpoint, t, pool); }});
  }
  return rows;
}

void print_contents(const Checkpoint& checkpoint) {
  uint64_t parameters = 0;
  std::set<std::string_view> types;
  for (const SourceTensor& t : checkpoint.tensors()) {
    parameters += t.elements();
    types.insert(name_of(t.dtype));
  }
  print_count(parameters, types);
  print_row("checksums", checkpoint.has_checksums() ? "of every tensor" : "none");
}

// What can be said of the package's list without its model.
std::string list_text(const Checkpoint& checkpoint) {
  const std::vector<SourceTensor>& t = checkpoint.tensors();
  bool v4 = t.size() > 1 && t[1].sizes.size() == 1;
  size_t parts = v4 ? 5 : 3;
  if (t.size() % parts != 0 || (!v4 && t[1].sizes.size() != 3)) return "none that is known";
  return fmt::format("{}, {} layers, n_embd {}{}: it does not tell more", v4 ? "RWKV-4" : "RWKV-5, 6 or 7",
                     t.size() / parts, fmt::join(t[0].sizes, ", "),
                     v4 ? "" : fmt::format(", {} heads of size {}", t[1].sizes[0], t[1].sizes[1]));
}

void print_state_checkpoint(const Checkpoint& checkpoint) {
  if (checkpoint.is_list()) {
    print_row("model", list_text(checkpoint));
    print_row("orientation", "att_kv is [head, key, value], of RWKV-7 [head, value, key]");
    return;
  }
  StateFile state = read_state_checkpoint(checkpoint);
  print_row("model", "RWKV-5, 6 or 7, " + state_text(state));
  print_row("orientation", "[head, value, key]: transposed for RWKV-5 and 6, as it is for RWKV-7");
}

// What to ask of a model's checkpoint. Of one that is not run here, why.
std::optional<MemoryQuestion> print_model_checkpoint(const Checkpoint& checkpoint) {
  try {
    ModelCheckpoint model(checkpoint);
    print_config(model.config());
    print_row("vocabulary", fmt::format("{} tokens", model.config().n_vocab));
    return MemoryQuestion{model.config(), {}, default_strategy(model), {}, {}};
  } catch (const Error& e) {
    std::string reason = e.what();
    const std::string& path = checkpoint.file().path();
    if (reason.starts_with(path + ": ")) reason.erase(0, path.size() + 2);
    print_row("model", "not taken: " + reason);
    return std::nullopt;
  }
}

void print_checkpoint(const InfoOptions& options) {
  Checkpoint checkpoint =
      Checkpoint::open(existing_checkpoint(options.path), {.check_crc = options.check_crc});
  check_claimed_size(checkpoint);
  bool state = checkpoint.is_list() || is_state_checkpoint(checkpoint);
  const MappedFile& file = checkpoint.file();
  print_file(file.path(), file.bytes().size(),
             checkpoint.is_list() ? "a list of tensors (.pth), as the Python package's states are"
             : state              ? "trained initial state (.pth)"
                                  : "checkpoint (.pth)");
  std::optional<MemoryQuestion> model;
  if (state) {
    print_state_checkpoint(checkpoint);
  } else {
    model = print_model_checkpoint(checkpoint);
  }
  print_contents(checkpoint);
  if (!options.memory.empty()) {
    if (!model) throw UsageError(fmt::format("{} is no model: --memory is for models", file.path()));
    model->strategy = options.memory;
    model->device_memory = options.device_memory;
    return print_memory(*model);
  }
  print_tensors(rows_of(checkpoint), options);
  if (model) print_usual_strategies(*model);
}

// --- Model files ---

std::vector<Row> rows_of(const ModelFile& model) {
  std::vector<Row> rows;
  for (const ModelTensor& t : model.tensors) {
    std::vector<int64_t> sizes = {t.spec.rows};
    if (t.spec.role != Role::vector) sizes.push_back(t.spec.cols);
    rows.push_back({t.name, std::string(name_of(t.form.dtype)), sizes, static_cast<uint64_t>(t.form.bytes()),
                    [&](ThreadPool& pool) { return statistics_of(t, model.bytes_of(t.name), pool); }});
  }
  if (auto bytes = model.vocabulary(); !bytes.empty()) {
    rows.push_back({vocabulary_tensor,
                    std::string(name_of(DType::u8)),
                    {static_cast<int64_t>(bytes.size())},
                    bytes.size(),
                    {}});
  }
  return rows;
}

std::string vocabulary_text(const ModelFile& model) {
  auto bytes = model.vocabulary();
  if (bytes.empty()) return fmt::format("{} tokens, none in the file", model.config.n_vocab);
  auto tokenizer = make_tokenizer(bytes, model.file.path());
  return fmt::format("{} tokens, {} in the file", model.config.n_vocab,
                     tokenizer->kind() == TokenizerKind::bpe20b ? "20B's kind" : "World's kind");
}

std::string checksums_text(const TensorFileHeader& header) {
  auto count = std::ranges::count_if(header.entries, [&](const TensorEntry& e) {
    return header.metadata_value(checksum_key(e.name)) != nullptr;
  });
  return fmt::format("of {} of {} tensors; --verify compares them", count, header.entries.size());
}

void print_model_file(const MappedFile& file, const InfoOptions& options) {
  ModelFile model = ModelFile::open(file);
  auto metadata = [&](const char* key) {
    const std::string* value = model.header.metadata_value(key);
    return value == nullptr ? "unknown" : printable(*value);
  };
  print_file(file.path(), file.bytes().size(), "converted model");
  print_config(model.config);
  print_row("strategy", to_string(model.strategy));
  print_row("vocabulary", vocabulary_text(model));
  print_row("source", metadata("rwkv.source"));
  print_row("sha256", metadata("rwkv.source_sha256"));
  print_row("made by", metadata("rwkv.converter"));
  uint64_t parameters = 0;
  std::set<std::string_view> types;
  MemoryQuestion question{model.config, options.memory, model.strategy, options.device_memory, {}};
  for (const ModelTensor& t : model.tensors) {
    parameters += static_cast<uint64_t>(t.spec.rows * t.spec.cols);
    types.insert(name_of(t.form.dtype));
    question.stored.push_back(t.form);
    if (is_quantized(t.form.dtype)) model.config.weights = DType::f32;  // what fp32 makes of integers
  }
  question.config = model.config;
  print_count(parameters, types);
  print_row("checksums", checksums_text(model.header));
  if (!options.memory.empty()) return print_memory(question);
  print_tensors(rows_of(model), options);
  print_usual_strategies(question);
}

// --- State files ---

void print_state_file(const MappedFile& file, const InfoOptions& options) {
  StateFile state = read_state_file(file);
  print_file(file.path(), file.bytes().size(), state.config ? "saved conversation" : "trained initial state");
  if (state.config) {
    print_row("model", model_text(*state.config));
    print_row("state", state_text(state));
    print_row("tokens", fmt::format("{}, {}", state.tokens.size(),
                                    state.logits.empty() ? "without the logits that follow them"
                                                         : "with the logits that follow them"));
  } else {
    print_row("model", "RWKV-5, 6 or 7, " + state_text(state));
  }
  if (state.heads > 0) print_row("orientation", "[head, key, value], in every version");
  print_row("of", state.source.empty() ? "unknown" : printable(state.source));
  TensorFileHeader header = parse_tensor_file(file.bytes(), file.path());
  print_row("checksums", "of every tensor; they are right");
  std::vector<Row> rows;
  for (const TensorEntry& e : header.entries) {
    auto bytes = file.bytes().subspan(header.data_begin + e.offset, e.bytes);
    rows.push_back({e.name, std::string(name_of(e.dtype)), e.sizes, e.bytes, {}});
    if (e.dtype != DType::f32) continue;
    rows.back().statistics = [bytes](ThreadPool&) {
      std::vector<float> values(bytes.size() / sizeof(float));  // the file may not be aligned
      std::memcpy(values.data(), bytes.data(), bytes.size());
      Statistics s;
      s.add(values);
      return s;
    };
  }
  print_tensors(rows, options);
}

}  // namespace

void print_info(const InfoOptions& options) {
  MappedFile file = MappedFile::open(existing_checkpoint(options.path));
  if (!is_tensor_file(file.bytes())) return print_checkpoint(options);
  if (!is_state_header(parse_tensor_file(file.bytes(), file.path()))) return print_model_file(file, options);
  if (!options.memory.empty()) {
    throw UsageError(fmt::format("{} is a state: --memory is for models", options.path));
  }
  print_state_file(file, options);
}

void print_row(const char* name, const std::string& value) { fmt::print("{:<12}{}\n", name, value); }

std::string model_text(const Config& c) {
  return fmt::format("RWKV-{}, {} layers, n_embd {}{}, n_ffn {}{}", name_of(c.version), c.n_layer, c.n_embd,
                     c.n_att == c.n_embd ? "" : fmt::format(", n_att {}", c.n_att), c.n_ffn,
                     c.head_size > 0 ? fmt::format(", head size {}", c.head_size) : "");
}

std::string state_text(const StateFile& state) {
  if (state.heads == 0) return fmt::format("{} layers, without heads", state.layers.size());
  return fmt::format("{} layers, {} heads of size {}", state.layers.size(), state.heads, state.head_size);
}

ModelIdentity identify_model(const std::string& path, bool check_crc) {
  MappedFile file = MappedFile::open(existing_checkpoint(path));
  if (is_tensor_file(file.bytes())) {
    ModelFile model = ModelFile::open(file);
    return {model.config, model.source()};
  }
  Checkpoint checkpoint = Checkpoint::open(file.path(), {.check_crc = check_crc});
  return {ModelCheckpoint(checkpoint).config(), std::filesystem::path(file.path()).filename().string()};
}

}  // namespace rwkv::apps
