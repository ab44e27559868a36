// Model files that are damaged, foreign, or of another time.
#include "model/model_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "model/checkpoint/convert.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/model/memory_file.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

std::string whole_file(const ModelShape& shape, const std::string& strategy) {
  TemporaryDirectory directory;
  write_checkpoint(directory / "m.pth", make_checkpoint(shape));
  ConvertOptions options;
  options.strategy = strategy;
  convert_model(Checkpoint::open(directory / "m.pth"), directory / "m", options);
  return read_file(directory / "m");
}

std::string tiny_file(Version version) {
  return whole_file({.version = version, .layers = 1, .embd = 4, .ffn = 4, .vocab = 3, .head = 4},
                    "cpu fp32");
}

bool same_tensors(const ModelFile& a, const ModelFile& b) {
  return a.config == b.config && a.plan == b.plan &&
         std::ranges::equal(a.header.entries, b.header.entries, [](const auto& x, const auto& y) {
           return x.name == y.name && x.offset == y.offset && x.bytes == y.bytes;
         });
}

/// A model's header and data, to be put together again with changes.
struct Parts {
  Metadata metadata;
  std::vector<TensorEntry> entries;
  std::vector<std::string> data;

  explicit Parts(const std::string& file) {
    TensorFileHeader header = parse_tensor_file(as_bytes(file), "f");
    metadata = header.metadata;
    entries = header.entries;
    for (const TensorEntry& e : entries) data.push_back(file.substr(header.data_begin + e.offset, e.bytes));
  }
  void set(const std::string& key, const std::string& value) {
    for (auto& [k, v] : metadata) {
      if (k == key) v = value;
    }
  }
  void erase(const std::string& key) {
    std::erase_if(metadata, [&](const auto& pair) { return pair.first == key; });
  }
  [[nodiscard]] std::string bytes() const {
    std::vector<TensorEntry> copy = entries;
    std::string file = make_tensor_file_header(metadata, copy);
    for (const std::string& part : data) file += part;
    return file;
  }
  /// "" when the file is taken.
  [[nodiscard]] std::string refusal() const {
    MemoryFile file(bytes());
    std::string error = error_of([&] { ModelFile::open(file.map()); });
    return error.empty() || error.starts_with("f: ") ? error : "badly worded: " + error;
  }
};

}  // namespace

TEST_CASE("model file: every cut is an error") {
  std::string bytes = tiny_file(Version::v4);
  MemoryFile file(bytes);
  size_t taken = 0;
  for (size_t size = bytes.size(); size-- > 0;) {
    file.resize(size);
    taken += error_of([&] { ModelFile::open(file.map()); }).empty() ? 1 : 0;
  }
  CHECK(taken == 0);
  CHECK(bytes.size() > 8192);
}

// A flip is an error, or changes no shape and no place; a changed weight or vocabulary has another checksum.
TEST_CASE("model file: every flipped bit is an error or an equal model") {
  std::string bytes = tiny_file(Version::v4);
  MemoryFile file(bytes);
  const ModelFile whole = ModelFile::open(file.map());
  size_t refused = 0, unequal = 0, unnoticed = 0;
  std::vector<int32_t> tokens = {0, 2, 1};
  for (size_t i = 0; i < bytes.size(); i++) {
    bool in_data = i >= whole.header.data_begin;
    char flipped = static_cast<char>(bytes[i] ^ (1 << i % 8));
    file.write(i, {&flipped, 1});
    try {
      ModelFile opened = ModelFile::open(file.map());
      unequal += same_tensors(opened, whole) ? 0 : 1;
      bool verified = error_of([&] { verify_checksums(opened.header, opened.file.bytes(), "f"); }).empty();
      unnoticed += in_data && verified ? 1 : 0;
      if (i % 64 == 0) run(Model::load(opened, {.strategy = "", .threads = 1, .progress = {}}), tokens);
    } catch (const Error&) {
      refused++;
    }
    file.write(i, {&bytes[i], 1});
  }
  CHECK(unequal == 0);
  CHECK(unnoticed == 0);
  CHECK(refused > 1000);
}

TEST_CASE("model file: an unchanged one is taken, with or without vocabulary, and what follows is not") {
  for (Version version : all_versions) {
    Parts parts(tiny_file(version));
    CHECK(parts.refusal().empty());
    TensorEntry vocabulary;
    vocabulary.name = vocabulary_tensor;
    vocabulary.dtype = DType::u8;
    vocabulary.sizes = {5};
    parts.entries.push_back(vocabulary);
    parts.data.emplace_back("bytes");
    CHECK(parts.refusal().empty());
    std::swap(parts.entries.back(), parts.entries.front());
    std::swap(parts.data.back(), parts.data.front());
    CHECK(!parts.refusal().empty());
  }
}

TEST_CASE("model file: a tensor that is missing, too much, misnamed or of another type or size is named") {
  const Parts whole(whole_file({}, "cpu bf16i8"));
  for (size_t i = 0; i < whole.entries.size(); i++) {
    auto at = static_cast<std::ptrdiff_t>(i);
    const std::string& name = whole.entries[i].name;
    CAPTURE(name);
    auto names_it = [&](const Parts& parts) { return contains(parts.refusal(), "'" + name + "'"); };
    Parts missing = whole;
    missing.entries.erase(missing.entries.begin() + at);
    missing.data.erase(missing.data.begin() + at);
    CHECK(names_it(missing));
    Parts misnamed = whole;
    misnamed.entries[i].name += "_";
    CHECK(names_it(misnamed));
    Parts other_type = whole;
    TensorEntry& entry = other_type.entries[i];
    entry.dtype = entry.dtype == DType::f32 ? DType::i32 : entry.dtype == DType::i8 ? DType::u8 : DType::f16;
    CHECK(names_it(other_type));
    Parts other_size = whole;
    std::swap(other_size.entries[i].sizes[0], other_size.entries[i].sizes[1]);
    CHECK((names_it(other_size) || whole.entries[i].sizes[0] == whole.entries[i].sizes[1]));
    Parts flat = whole;
    flat.entries[i].sizes = {whole.entries[i].sizes[0] * whole.entries[i].sizes[1]};
    CHECK(names_it(flat));
  }
  Parts more = whole;
  more.entries.push_back(more.entries.back());
  more.entries.back().name = "surprise";
  more.data.push_back(more.data.back());
  CHECK(contains(more.refusal(), "tensors, a model of its shape has"));
}

TEST_CASE("model file: metadata that are missing, of another time, or do not fit the tensors") {
  const Parts whole(whole_file({}, "cpu fp32"));
  for (const std::string key :
       {"rwkv.format", "rwkv.kind", "rwkv.version", "rwkv.strategy", "rwkv.time_state", "rwkv.n_layer",
        "rwkv.n_embd", "rwkv.head_size", "rwkv.g_rank"}) {
    Parts parts = whole;
    parts.erase(key);
    CHECK(contains(parts.refusal(), "its metadata lack '" + std::string(key) + "'"));
  }
  Parts without_type = whole;
  without_type.erase("rwkv.weights");
  CHECK(without_type.refusal().empty());
  struct Change {
    std::string key, value, error;
  };
  for (const Change& c :
       {Change{"rwkv.format", "2", "written in format 2, this program reads format 1"},
        {"rwkv.format", "", "written in format"},
        {"rwkv.kind", "state", "a state, where a model is expected"},
        {"rwkv.version", "8", "RWKV version 8 is not supported"},
        {"rwkv.version", "6", "it gives sizes that a model of RWKV-6 with 2 layers does not have"},
        {"rwkv.n_layer", "3", "tensor"},
        {"rwkv.n_layer", "1000000000", "no model has"},
        {"rwkv.n_embd", "32", "tensor"},
        {"rwkv.n_vocab", "67108864", "tensor"},
        {"rwkv.n_ffn", "0", "not a model"},
        {"rwkv.head_size", "7", "not divisible into heads"},
        {"rwkv.time_state", "1", "tensor"},
        {"rwkv.weights", "int8", "'rwkv.weights' is 'int8', not fp32, fp16 or bf16"},
        {"rwkv.weights", "bf16", "tensor"},
        {"rwkv.strategy", "cpu fp64", "'fp64' is no precision"},
        {"rwkv.strategy", "cpu bf16", "tensor"},
        {"rwkv.strategy", "cpu fp32 *99", "takes more layers than the model's 3"}}) {
    CAPTURE(c.key);
    CAPTURE(c.value);
    Parts parts = whole;
    parts.set(c.key, c.value);
    CHECK_MESSAGE(contains(parts.refusal(), c.error), parts.refusal());
  }
}

TEST_CASE("model file: which matrices are coded is what the metadata say, and must fit the tensors") {
  const std::string key = "layout.head.weight", coded = "cpu_coded bf16 [20, 256]",
                    plain = "cpu_blocks bf16 [20, 256]";
  const ModelShape shape{.embd = 256, .dtype = DType::bf16};
  const Parts whole(whole_file(shape, "cpu bf16"));
  for (const std::string& value : {plain, std::string("cpu_coded bf16 [20, 257]"), std::string()}) {
    Parts parts = whole;
    parts.set(key, value);
    CHECK(contains(parts.refusal(), "should be 'head.weight' bf16"));
  }
  Parts same = whole, without = whole, narrow(whole_file({.dtype = DType::bf16}, "cpu bf16"));
  same.set(key, coded);
  CHECK(same.refusal().empty());
  without.erase(key);
  CHECK(contains(without.refusal(), "should be 'head.weight' bf16"));
  narrow.set(key, "cpu_coded bf16 [20, 16]");  // these would be larger so: for people alone
  CHECK(narrow.refusal().empty());
}

TEST_CASE("model file: checksums find the tensor that changed, and cannot be left out") {
  std::string bytes = whole_file({}, "cpu bf16i8");
  MemoryFile file(bytes);
  const ModelFile whole = ModelFile::open(file.map());
  auto verify = [](const std::string& changed) {
    TensorFileHeader header = parse_tensor_file(as_bytes(changed), "f");
    return error_of([&] { verify_checksums(header, as_bytes(changed), "f"); });
  };
  CHECK(verify(bytes).empty());
  for (const TensorEntry& e : whole.header.entries) {
    std::string changed = bytes;
    size_t last = whole.header.data_begin + e.offset + e.bytes - 1;  // padding counts as well
    changed[last] = static_cast<char>(changed[last] ^ 0x10);
    CHECK(contains(verify(changed), "f: tensor '" + e.name + "' is damaged (checksum "));
    Parts parts(bytes);
    parts.erase(checksum_key(e.name));
    CHECK(verify(parts.bytes()) == "f: no checksum for tensor '" + e.name + "'");
  }
  uint64_t done = 0, total = 0;
  verify_checksums(whole.header, whole.file.bytes(), "f", [&](uint64_t d, uint64_t t) {
    CHECK(d > done);
    done = d;
    total = t;
  });
  CHECK(done == total);
  CHECK(total == bytes.size() - whole.header.data_begin);
}

}  // namespace rwkv::test

TEST_SUITE_END();
