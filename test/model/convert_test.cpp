// From a checkpoint to a model file: what is in it, and what happens when something goes wrong.
#include "model/checkpoint/convert.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "core/sha256.h"
#include "test/allocations.h"
#include "test/core/unprivileged.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

namespace fs = std::filesystem;

/// A directory with a small checkpoint.
struct Fixture {
  TemporaryDirectory directory;
  std::string source = directory / "model.pth", output = directory / "model.rwkv";
  ConvertReport report;

  Fixture() { write_checkpoint(source, make_checkpoint({})); }

  const ConvertReport& convert(const ConvertOptions& options = {}) {
    report = convert_model(Checkpoint::open(source), output, options);
    return report;
  }
  [[nodiscard]] size_t files() const {
    auto entries = fs::directory_iterator(directory / "");
    return static_cast<size_t>(std::distance(begin(entries), end(entries)));
  }
};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "convert: the report and the metadata tell what was done") {
  uint64_t last = 0, end = 0;
  ConvertOptions options;
  options.strategy = "cpu  fp32i8 *1->cpu bf16";
  options.progress = [&](uint64_t done, uint64_t total) {
    CHECK(done > last);
    CHECK(done <= total);
    last = done;
    end = total;
  };
  convert(options);
  CHECK(last == end);
  CHECK(report.bytes_written == end);
  CHECK(report.bytes_written == fs::file_size(output));
  CHECK(report.bytes_read == fs::file_size(source));
  CHECK(report.warnings.empty());
  CHECK(report.config.version == Version::v7);
  CHECK(to_string(report.strategy) == "cpu fp32i8 *1 -> cpu bf16");
  CHECK(report.plan.size() == 3);
  ModelFile file = ModelFile::open(output);
  CHECK(file.config == report.config);
  CHECK(file.plan == report.plan);
  CHECK(file.source() == "model.pth");
  Sha256 sha;
  sha.update(MappedFile::open(source).bytes());
  CHECK(*file.header.metadata_value("rwkv.source_sha256") == sha.finish());
  CHECK(file.vocabulary().empty());
  CHECK(file.header.data_begin % tensor_file_alignment == 0);
  verify_checksums(file.header, file.file.bytes(), output);
}

TEST_CASE_FIXTURE(Fixture, "convert: without a strategy the precision is the checkpoint's") {
  for (auto [dtype, name] :
       {std::pair{DType::f32, "cpu fp32"}, {DType::f16, "cpu fp16"}, {DType::bf16, "cpu bf16"}}) {
    write_checkpoint(source, make_checkpoint({.dtype = dtype}));
    CHECK(to_string(convert().strategy) == name);
  }
}

TEST_CASE_FIXTURE(Fixture, "convert: a vocabulary goes into the file, if its ids fit the model") {
  write_checkpoint(source, make_checkpoint({.vocab = 300}));
  std::string vocabulary = directory / "vocabulary.txt", bytes;
  for (int i = 0; i < 256; i++) bytes += fmt::format("{} b'\\x{:02x}' 1\n", i + 1, i);
  write_file(vocabulary, bytes + "299 'ab' 2\n");
  ConvertOptions options;
  options.vocabulary = MappedFile::open(vocabulary);
  convert(options);
  CHECK(text_of(ModelFile::open(output).vocabulary()) == read_file(vocabulary));
  CHECK(text_of(convert_in_memory(Checkpoint::open(source), options).vocabulary()) == read_file(vocabulary));
  fs::remove(output);
  write_file(vocabulary, bytes + "300 'ab' 2\n");
  options.vocabulary = MappedFile::open(vocabulary);
  CHECK(contains(error_of([&] { convert(options); }), "ids up to 300, but the model has only 300 tokens"));
  write_file(vocabulary, "1 a 1\n");
  options.vocabulary = MappedFile::open(vocabulary);
  CHECK(error_of([&] { convert(options); }).starts_with(vocabulary));
  CHECK(files() == 2);
}

TEST_CASE_FIXTURE(Fixture, "convert: a strategy that cannot be is refused before anything is written") {
  for (const std::string strategy : {"cuda fp16 *4", "cuda fp16 *4+", "cpu fp32 *4", "cpu fp64"}) {
    ConvertOptions options;
    options.strategy = strategy;
    CHECK(contains(error_of([&] { convert(options); }), "strategy '" + strategy));
    CHECK(contains(error_of([&] { convert_in_memory(Checkpoint::open(source), options); }), strategy));
  }
  CHECK(files() == 1);
}

TEST_CASE_FIXTURE(Fixture, "convert: names with blanks, %, commas, quotes and Chinese characters") {
  for (const std::string name :
       {"RWKV 7 (100%), final.pth", "\xe4\xb8\xad\xe6\x96\x87\xe6\xa8\xa1\xe5\x9e\x8b.pth", "%s%n%d",
        "a\"b'c\\d", "-", "two\nlines", "no.suffix", "bad \xff utf-8"}) {
    CAPTURE(name);
    source = directory / name;
    output = directory / (name + " \xe8\xbd\xac\xe6\x8d\xa2,%.rwkv");
    write_checkpoint(source, make_checkpoint({}));
    convert();
    bool utf8 = name.find('\xff') == std::string::npos;
    CHECK(ModelFile::open(output).source() == (utf8 ? name : "bad \xef\xbf\xbd utf-8"));
    CHECK(run(load_file(output), std::vector<int32_t>{1, 2}).size() == 40);
  }
}

TEST_CASE_FIXTURE(Fixture, "convert: the checkpoint itself is never the output, under any name") {
  std::string before = read_file(source);
  fs::create_symlink(source, directory / "symbolic");
  fs::create_hard_link(source, directory / "hard");
  fs::create_directory(directory / "folder");
  for (const std::string name : {"model.pth", "symbolic", "hard", "folder/../model.pth"}) {
    output = directory / name;
    CHECK(!error_of([&] { convert(); }).empty());
    CHECK(read_file(source) == before);
  }
  CHECK(files() == 4);
}

TEST_CASE_FIXTURE(Fixture, "convert: where nothing can be written, nothing is left behind") {
  fs::create_directory(directory / "folder");
  fs::permissions(directory / "folder", fs::perms::owner_read | fs::perms::owner_exec);
  {
    Unprivileged bound;
    output = directory / "folder/model.rwkv";
    CHECK(contains(error_of([&] { convert(); }), "no permission"));
  }
  fs::permissions(directory / "folder", fs::perms::owner_all);
  CHECK(fs::is_empty(directory / "folder"));
  output = directory / "missing/model.rwkv";
  CHECK(contains(error_of([&] { convert(); }), "no such directory"));
  output = directory / "folder";
  CHECK(contains(error_of([&] { convert(); }), "is a directory"));
  for (const std::string device : {"/dev/full", "/dev/null"}) {
    output = device;
    CHECK(contains(error_of([&] { convert(); }), "is a pipe, device or socket"));
  }
  CHECK(files() == 2);
}

TEST_CASE_FIXTURE(Fixture, "convert: a file size limit is an error, and the old file stays") {
  write_file(output, "old");
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  rlimit small = limit;
  small.rlim_cur = 10000;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string error = error_of([&] { convert(); });
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  CHECK(contains(error, "too large for this file system or for the limit of the process"));
  CHECK(read_file(output) == "old");
  CHECK(files() == 2);
}

TEST_CASE_FIXTURE(Fixture,
                  "convert: killed at any moment it leaves the old file, and no other that can be loaded") {
  convert();
  const std::string old = read_file(output);
  write_checkpoint(source, make_checkpoint({.seed = 2}));
  std::vector<uint64_t> moments = {0};
  {
    ConvertOptions options;
    options.progress = [&](uint64_t done, uint64_t) { moments.push_back(done); };
    convert_in_memory(Checkpoint::open(source), options);
  }
  for (size_t i = 1; i < moments.size(); i += 5) {
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ConvertOptions options;
      options.progress = [&](uint64_t done, uint64_t) {
        if (done == moments[i]) kill(getpid(), SIGKILL);
      };
      convert(options);
      _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(read_file(output) == old);
    int unfinished = 0;
    for (const auto& entry : fs::directory_iterator(directory / "")) {
      if (entry.path().extension() != ".partial") continue;
      unfinished++;
      CHECK(!error_of([&] { ModelFile::open(entry.path().string()); }).empty());
      fs::remove(entry.path());
    }
    CHECK(unfinished == 1);
  }
  convert();
  CHECK(read_file(output) != old);
}

TEST_CASE_FIXTURE(Fixture,
                  "convert: a damaged checkpoint is found while converting, and nothing is left behind") {
  std::string bytes = read_file(source);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file(source, bytes);
  CHECK(contains(error_of([&] { convert(); }), "is damaged: its checksum is"));
  CHECK(files() == 1);
}

TEST_CASE_FIXTURE(Fixture, "convert: NaN and infinite weights are counted for each tensor") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const std::string strategy : {"cpu fp32", "cpu bf16", "cpu fp32i8"}) {
    CAPTURE(strategy);
    CheckpointTensors tensors = make_checkpoint({});
    tensor_of(tensors, "blocks.0.att.key.weight").values[7] = nan;
    tensor_of(tensors, "blocks.1.ffn.value.weight").values[0] = inf;
    tensor_of(tensors, "blocks.1.ffn.value.weight").values[380] = -inf;
    tensor_of(tensors, "blocks.1.att.w0").values[3] = nan;
    tensor_of(tensors, "blocks.1.att.g2").values[3] = nan;
    tensor_of(tensors, "emb.weight").values[5] = inf;
    write_checkpoint(source, tensors);
    ConvertOptions options;
    options.strategy = strategy;
    CHECK(convert(options).warnings ==
          std::vector<std::string>{"tensor 'emb.weight' has 1 NaN or infinite weight",
                                   "tensor 'blocks.0.att.key.weight' has 1 NaN or infinite weight",
                                   "tensor 'blocks.1.att.g2' has 1 NaN or infinite weight",
                                   "tensor 'blocks.1.att.w0' has 1 NaN or infinite weight",
                                   "tensor 'blocks.1.ffn.value.weight' has 2 NaN or infinite weights"});
    CHECK(run(load_file(output), std::vector<int32_t>{1, 2}).size() == 40);
  }
}

TEST_CASE_FIXTURE(Fixture, "convert: weights too large for fp16 are counted where they become infinite") {
  CheckpointTensors tensors = make_checkpoint({});
  auto& values = tensor_of(tensors, "blocks.0.att.key.weight").values;
  values[0] = 65504;  // the largest
  values[1] = 65519;  // rounds down
  values[2] = 65520;
  values[3] = -1e9f;
  write_checkpoint(source, tensors);
  ConvertOptions options;
  options.strategy = "cpu fp16";
  std::vector<std::string> warnings = convert(options).warnings;
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].starts_with("tensor 'blocks.0.att.key.weight' has 2 "));
  options.strategy = "cpu bf16";
  CHECK(convert(options).warnings.empty());
}

// Tensors of 16 MB, which are zeros in a file with holes; a fixed part of a tensor is in memory at a time.
TEST_CASE_FIXTURE(Fixture, "convert: memory does not grow with the tensors") {
  CheckpointTensors tensors = make_checkpoint({.version = Version::v4, .layers = 1});
  std::vector<std::pair<std::string, std::string>> entries;
  std::vector<ZipRecord> holes;
  for (const CheckpointTensor& t : tensors) {
    PickledTensor tensor;
    tensor.sizes = t.sizes;
    tensor.elements = 1;
    for (int64_t& size : tensor.sizes) {
      if (size == 16) size = 1024;  // n_embd
      if (size == 20) size = 8192;  // tokens
      if (size == 24) size = 8192;  // n_ffn
      tensor.elements *= size;
    }
    tensor.strides.assign(t.sizes.size(), 1);
    for (size_t i = t.sizes.size(); i-- > 1;) tensor.strides[i - 1] = tensor.strides[i] * tensor.sizes[i];
    tensor.key = std::to_string(holes.size());
    tensor.storage = "HalfStorage";
    entries.emplace_back(t.name, pickled_tensor(tensor));
    holes.push_back({"m/data/" + tensor.key, "", static_cast<uint64_t>(tensor.elements) * 2});
  }
  std::vector<ZipRecord> records = checkpoint_records(pickle_of(pickled_dict(entries)), {});
  records.insert(records.end(), holes.begin(), holes.end());
  make_zip(records).write(source);
  REQUIRE(fs::file_size(source) > 70'000'000);

  ConvertOptions options;
  options.strategy = "cpu bf16i8";
  options.threads = 2;
  CheckpointOptions unchecked;
  unchecked.check_crc = false;  // no checksums of holes
  restart_peak();
  convert_model(Checkpoint::open(source, unchecked), output, options);
  CHECK(peak_bytes() > 10'000);
  CHECK(peak_bytes() < 12'000'000);
}

}  // namespace rwkv::test

TEST_SUITE_END();
