#include "model/checkpoint/convert.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>

#include "core/buffer.h"
#include "core/crc32.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/output_file.h"
#include "core/sha256.h"
#include "core/version.h"
#include "model/checkpoint/tensor_writer.h"
#include "tokenizer/tokenizer.h"

namespace rwkv {
namespace {

using WriteAt = std::function<void(uint64_t offset, std::span<const std::byte>)>;

constexpr const char* checksum_placeholder = "00000000";

// Everything about a conversion that is known before a weight is read.
struct Plan {
  ModelCheckpoint model;
  ConvertReport report;
  std::vector<ModelTensor> tensors;
  std::vector<TensorEntry> entries;
  Metadata metadata;
  uint64_t header_bytes = 0, total_bytes = 0;
  uint64_t examined_bytes = 0;  ///< of tensors that might be coded
};

void check_vocabulary(const MappedFile& vocabulary, Plan& plan) {
  int64_t size = make_tokenizer(vocabulary.bytes(), vocabulary.path())->size();
  if (size > plan.report.config.n_vocab) {
    throw Error(
        fmt::format("{}: a vocabulary with ids up to {}, but the model has only {} tokens: give the "
                    "model's own vocabulary with --vocab",
                    vocabulary.path(), size - 1, plan.report.config.n_vocab));
  }
}

Metadata make_metadata(const Plan& plan, const Checkpoint& checkpoint) {
  Metadata m = {{model_format_key, model_format},
                {"rwkv.kind", "model"},
                {"rwkv.strategy", to_string(plan.report.strategy)},
                {"rwkv.source", std::filesystem::path(checkpoint.file().path()).filename().string()},
                {"rwkv.source_sha256", std::string(64, '0')},
                {"rwkv.converter", std::string("rwkv-convert ") + version}};
  for (auto& pair : config_metadata(plan.report.config)) m.push_back(std::move(pair));
  for (const ModelTensor& t : plan.tensors) m.emplace_back(layout_key(t.name), describe(t));
  for (const TensorEntry& e : plan.entries) m.emplace_back(checksum_key(e.name), checksum_placeholder);
  return m;
}

// Gives tensors that can be coded that form: the sizes of all must be known before the first is written.
void choose_coded(Plan& plan, const ConvertOptions& options, ThreadPool& pool) {
  uint64_t all = 0;
  for (const ModelTensor& t : plan.tensors) {
    const bool examined = coded_form(t.spec, t.form) != t.form;
    all += static_cast<uint64_t>(t.form.bytes()) * (examined ? 2 : 1);
  }
  for (ModelTensor& t : plan.tensors) {
    const StoredForm smaller = coded_form(t.spec, t.form);
    if (smaller == t.form) continue;
    plan.examined_bytes += static_cast<uint64_t>(t.form.bytes());
    if (can_be_coded(plan.model, t, pool)) t.form = smaller;
    if (options.progress) options.progress(plan.examined_bytes, all);
  }
}

Plan make_plan(const Checkpoint& checkpoint, const ConvertOptions& options, ThreadPool& pool) {
  Plan plan{ModelCheckpoint(checkpoint), {}, {}, {}, {}};
  ConvertReport& report = plan.report;
  report.config = plan.model.config();
  report.strategy =
      options.strategy.empty() ? default_strategy(plan.model) : Strategy::parse(options.strategy);
  report.plan = report.strategy.plan(report.config.layers());
  plan.tensors = model_tensors(report.config, report.plan);
  choose_coded(plan, options, pool);
  for (const ModelTensor& t : plan.tensors) plan.entries.push_back(entry_of(t));
  if (auto bytes = options.vocabulary.bytes(); !bytes.empty()) {
    check_vocabulary(options.vocabulary, plan);
    TensorEntry entry;
    entry.name = vocabulary_tensor;
    entry.dtype = DType::u8;
    entry.sizes = {static_cast<int64_t>(bytes.size())};
    plan.entries.push_back(entry);
  }
  plan.metadata = make_metadata(plan, checkpoint);
  plan.header_bytes = make_tensor_file_header(plan.metadata, plan.entries).size();
  const TensorEntry& last = plan.entries.back();
  plan.total_bytes = plan.header_bytes + last.offset + last.bytes;
  return plan;
}

// Ends early, with a wrong result, when `stop` becomes true.
std::string sha256_of(std::span<const std::byte> bytes, const std::atomic<bool>& stop) {
  constexpr size_t piece = 16 << 20;
  Sha256 sha;
  for (size_t at = 0; at < bytes.size() && !stop; at += piece) {
    sha.update(bytes.subspan(at, std::min(piece, bytes.size() - at)));
  }
  return sha.finish();
}

// The hash of the source, computed beside the conversion; without a thread to be had, when it is asked for.
class SourceHash {
 public:
  explicit SourceHash(std::span<const std::byte> source)
      : result_(std::async([this, source] { return sha256_of(source, stop_); })) {}
  ~SourceHash() { stop_ = true; }
  SourceHash(const SourceHash&) = delete;
  SourceHash& operator=(const SourceHash&) = delete;

  std::string get() { return result_.get(); }

 private:
  std::atomic<bool> stop_ = false;
  std::future<std::string> result_;  // last: its destructor waits
};

void set_metadata(Metadata& metadata, const std::string& key, const std::string& value) {
  for (auto& [k, v] : metadata) {
    if (k == key) v = value;
  }
}

// Tensors first, the header last: until it is there, the file is none.
void write_model(Plan& plan, const ConvertOptions& options, ThreadPool& pool, const WriteAt& write_at) {
  std::span<const std::byte> source = plan.model.checkpoint().file().bytes();
  SourceHash hash(source);
  for (size_t i = 0; i < plan.entries.size(); i++) {
    const TensorEntry& entry = plan.entries[i];
    uint64_t at = plan.header_bytes + entry.offset;
    uint32_t crc = 0;
    auto sink = [&](std::span<const std::byte> bytes) {
      crc = crc32(bytes, crc);
      write_at(at, bytes);
      at += bytes.size();
      if (options.progress)
        options.progress(plan.examined_bytes + at, plan.examined_bytes + plan.total_bytes);
    };
    if (i < plan.tensors.size()) {
      if (int64_t bad = write_tensor(plan.model, plan.tensors[i], pool, sink); bad > 0) {
        plan.report.warnings.push_back(
            fmt::format("tensor '{}' has {} NaN or infinite weight{}", entry.name, bad, bad == 1 ? "" : "s"));
      }
    } else {
      sink(options.vocabulary.bytes());
    }
    set_metadata(plan.metadata, checksum_key(entry.name), checksum_text(crc));
  }
  set_metadata(plan.metadata, "rwkv.source_sha256", hash.get());
  std::string header = make_tensor_file_header(plan.metadata, plan.entries);
  write_at(0, std::as_bytes(std::span(header)));
  plan.report.bytes_read = source.size();
  plan.report.bytes_written = plan.total_bytes;
}

}  // namespace

Strategy default_strategy(const ModelCheckpoint& model) {
  return Strategy::parse(fmt::format("cpu {}", name_of(model.find("emb.weight")->dtype)));
}

ConvertReport convert_model(const Checkpoint& checkpoint, const std::string& path,
                            const ConvertOptions& options) {
  auto start = std::chrono::steady_clock::now();
  check_not_input(path, {checkpoint.file().path(), options.vocabulary.path()});
  ThreadPool pool(options.threads);
  Plan plan = make_plan(checkpoint, options, pool);
  OutputFile out(path, plan.total_bytes);
  write_model(plan, options, pool,
              [&](uint64_t offset, std::span<const std::byte> bytes) { out.write_at(offset, bytes); });
  out.commit();
  plan.report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return plan.report;
}

ModelFile convert_in_memory(const Checkpoint& checkpoint, const ConvertOptions& options) {
  ThreadPool pool(options.threads);
  Plan plan = make_plan(checkpoint, options, pool);
  const std::string& path = checkpoint.file().path();
  check_memory(plan.total_bytes, path,
               "convert it with rwkv-convert and use the file, or choose a smaller precision");
  int descriptor = memfd_create("rwkv", MFD_CLOEXEC);
  if (descriptor < 0) throw system_error(path, "make memory for the converted model", errno);
  MappedFile mapping;
  {
    auto fail = [&]() {
      int code = errno;
      close(descriptor);
      throw system_error(path, "make memory for the converted model", code);
    };
    if (ftruncate(descriptor, static_cast<off_t>(plan.total_bytes)) != 0) fail();
    void* memory = mmap(nullptr, plan.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED) fail();
    Buffer writable(static_cast<std::byte*>(memory), plan.total_bytes,
                    [size = plan.total_bytes](std::byte* p) { munmap(p, size); });
    try {
      write_model(plan, options, pool, [&](uint64_t offset, std::span<const std::byte> bytes) {
        std::memcpy(writable.data() + offset, bytes.data(), bytes.size());
      });
    } catch (...) {
      close(descriptor);
      throw;
    }
    mapping = MappedFile::from_descriptor(descriptor, path);
  }
  return ModelFile::open(std::move(mapping));
}

}  // namespace rwkv
