// Whole checkpoints: what PyTorch wrote is read as PyTorch reads it, or refused by name.
#include "model/checkpoint/pth.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <set>
#include <sstream>

#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

std::string fixture(const std::string& name) { return data_path("checkpoint/" + name); }

/// One line of expected.txt.
struct Expected {
  std::string file, key, dtype, sizes, values;
};

std::vector<Expected> read_expected() {
  std::vector<Expected> all;
  std::istringstream lines(read_file(fixture("expected.txt")));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    Expected e;
    std::getline(fields, e.file, '|');
    std::getline(fields, e.key, '|');
    std::getline(fields, e.dtype, '|');
    std::getline(fields, e.sizes, '|');
    std::getline(fields, e.values, '|');
    all.push_back(e);
  }
  return all;
}

std::string joined(const std::vector<int64_t>& sizes) {
  std::string text;
  for (int64_t size : sizes) text += (text.empty() ? "" : " ") + std::to_string(size);
  return text;
}

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

void check_tensor(const Checkpoint& checkpoint, const Expected& e) {
  const SourceTensor* tensor = checkpoint.find(e.key);
  REQUIRE(tensor != nullptr);
  CHECK(name_of(tensor->dtype) == e.dtype);
  CHECK(joined(tensor->sizes) == e.sizes);
  std::vector<float> values(tensor->elements());
  checkpoint.read_f32(*tensor, 0, values.size(), values.data());
  std::istringstream expected(e.values);
  for (float value : values) {
    std::string text;
    expected >> text;
    CHECK_MESSAGE(same(value, std::strtof(text.c_str(), nullptr)), value << " is not " << text);
  }
  CHECK_FALSE((expected >> std::ws).good());
}

TEST_CASE("what PyTorch wrote reads as PyTorch reads it") {
  std::vector<Expected> expected = read_expected();
  REQUIRE(expected.size() > 80);
  size_t at = 0;
  while (at < expected.size()) {
    std::string file = expected[at].file;
    CAPTURE(file);
    Checkpoint checkpoint = Checkpoint::open(fixture(file));
    std::vector<std::string> names, others;
    for (; at < expected.size() && expected[at].file == file; at++) {
      const Expected& e = expected[at];
      CAPTURE(e.key);
      if (e.dtype == "-") {
        others.push_back(e.key);
        CHECK(checkpoint.find(e.key) == nullptr);
      } else {
        names.push_back(e.key);
        check_tensor(checkpoint, e);
      }
    }
    checkpoint.check_all();
    CHECK(checkpoint.other_names() == others);
    REQUIRE(checkpoint.tensors().size() == names.size());
    for (size_t i = 0; i < names.size(); i++) CHECK(checkpoint.tensors()[i].name == names[i]);
  }
}

TEST_CASE("what is no plain state dict is refused by name") {
  const std::pair<const char*, const char*> cases[] = {
      {"float8.pth",
       "tensor 'x' is float8_e4m3fn (torch.UntypedStorage): only float32, float16 and bfloat16"},
      {"sparse.pth", "the value 'x' asks for 'torch._utils._rebuild_sparse_tensor', which is refused"},
      {"meta.pth", "the value 'x' asks for 'torch._utils._rebuild_meta_tensor_no_storage', which is refused"},
      {"negated.pth", "tensor 'x' is a view with pending operations"},
      {"module.pth", "its pickle asks for '__main__.Model', which is refused"},
      {"tensor.pth", "holds a tensor, not a dict of tensors"},
      {"numpy_array.pth", "the value 'y' asks for 'numpy._core.multiarray._reconstruct'"},
      {"training.pth",
       "a training checkpoint that holds epoch (an int), state_dict (a dict), optimizer (a dict)"},
      {"training.pth", "torch.save(torch.load(FILE)['state_dict'], NEW_FILE)"},
      {"training_arguments.pth", "the value 'args' asks for 'argparse.Namespace'"},
      {"training_arguments.pth", "torch.save(torch.load(FILE)['state_dict'], NEW_FILE)"},
      {"torchscript.pth", "a TorchScript archive"},
      {"skipped_data.pth", "record 'skipped_data/data/0' is damaged"},
      {"no_checksums.pth", "if the file was saved without checksums, rwkv-convert --no-crc reads it"},
  };
  for (const auto& [file, message] : cases) {
    std::string path = fixture(file);
    std::string error = error_of([&path] { read_all(path); });
    CHECK_MESSAGE(contains(error, message), error);
    CHECK(error.starts_with(path + ": "));
  }
}

TEST_CASE("every file of the folder is expected to read or to be refused") {
  std::set<std::string> readable;
  for (const Expected& e : read_expected()) readable.insert(e.file);
  for (const auto& entry : std::filesystem::directory_iterator(fixture(""))) {
    if (entry.path().extension() != ".pth") continue;
    std::string error = error_of([&] { read_all(entry.path().string()); });
    CHECK_MESSAGE(error.empty() == (readable.count(entry.path().filename().string()) == 1), entry.path()
                                                                                                << error);
  }
}

TEST_CASE("a file without checksums reads when they are not to be compared") {
  CheckpointOptions options;
  options.check_crc = false;
  auto contents = read_all(fixture("no_checksums.pth"), options);
  CHECK(contents == read_all(fixture("dict.pth")));
}

TEST_CASE("paths that are no regular file are refused") {
  TemporaryDirectory directory;
  std::string fifo = directory / "fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  for (const std::string& path : {fifo, directory / "missing", directory / "", std::string("/dev/null")}) {
    std::string error = error_of([&] { Checkpoint::open(path); });
    CHECK_MESSAGE(error.starts_with(path + ": "), error);
  }
}

TEST_CASE("the names of the file and of its root folder do not matter") {
  TemporaryDirectory directory;
  for (std::string name : {"no extension", "100%s.pth", "a,b.pth.pth", "\xe4\xb8\xad\xe6\x96\x87 {}.pth"}) {
    std::string path = directory / name;
    make_zip(checkpoint_records(pickle_of(pickled_dict({{"x", pickled_tensor()}})), {floats(6)}, name))
        .write(path);
    auto contents = read_all(path);
    REQUIRE(contents.size() == 1);
    CHECK(contents[0].elements == floats(6));
  }
}

TEST_CASE("checksums are compared when elements are first read, all at once on demand, or never") {
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  Zip zip = make_zip(checkpoint_records(
      pickle_of(pickled_dict({{"good", pickled_tensor()}, {"bad", pickled_tensor({.key = "1"})}})),
      {floats(6), floats(6)}));
  std::string bytes = zip.bytes();
  bytes[zip.payloads[3] + 5] ^= 1;
  write_file(path, bytes);

  Checkpoint checkpoint = Checkpoint::open(path);
  float values[6] = {};
  checkpoint.read_f32(*checkpoint.find("good"), 0, 6, values);
  CHECK(values[5] == 5);
  std::string damaged = path + ": record 'm/data/1' is damaged: its checksum is ";
  CHECK(error_of([&] { checkpoint.read_f32(*checkpoint.find("bad"), 5, 1, values); }).starts_with(damaged));
  CHECK(error_of([&] { checkpoint.read(*checkpoint.find("bad"), 0, 0, nullptr); }).starts_with(damaged));
  CHECK(error_of([&] { checkpoint.check(*checkpoint.find("bad")); }).starts_with(damaged));
  CHECK(error_of([&] { checkpoint.check_all(); }).starts_with(damaged));

  CheckpointOptions options;
  options.check_crc = false;
  Checkpoint unchecked = Checkpoint::open(path, options);
  unchecked.check_all();
  unchecked.read_f32(*unchecked.find("bad"), 2, 4, values);
  CHECK(values[0] == 2);
}

TEST_CASE("comparing all checksums reports its progress up to the total") {
  Checkpoint checkpoint = Checkpoint::open(fixture("dict.pth"));
  uint64_t last = 0, of = 0;
  size_t calls = 0;
  checkpoint.check_all([&](uint64_t done, uint64_t total) {
    CHECK(done > last);
    CHECK((of == 0 || of == total));
    last = done;
    of = total;
    calls++;
  });
  CHECK(calls > 3);
  CHECK(last == of);
  checkpoint.check_all([](uint64_t, uint64_t) { FAIL("nothing is left to do"); });
}

TEST_CASE("a moved checkpoint still finds its tensors") {
  Checkpoint first = Checkpoint::open(fixture("dict.pth"));
  Checkpoint second = std::move(first);
  REQUIRE(second.find("ln.bias") != nullptr);
  CHECK(second.find("ln.bias")->sizes == std::vector<int64_t>{3});
  CHECK(second.find("") == nullptr);
  CHECK(second.find("ln") == nullptr);
  CHECK(second.file().path() == fixture("dict.pth"));
}

TEST_CASE("a big-endian or unknown byte order is refused") {
  for (std::string order : {"big", "BIG", "", "littl", "little\n"}) {
    auto records = checkpoint_records(pickle_of(pickled_dict({{"x", pickled_tensor()}})), {floats(6)});
    records[1].payload = order;
    CHECK(contains(error_of_bytes(make_zip(records).bytes()), "was not written on a little-endian machine"));
  }
}

TEST_CASE("records of the archive must be those that the pickle speaks of") {
  auto records = checkpoint_records(pickle_of(pickled_dict({{"x", pickled_tensor()}})), {floats(6)});
  auto error_with = [&](size_t index, const ZipRecord& record) {
    auto changed = records;
    changed[index] = record;
    return error_of_bytes(make_zip(changed).bytes());
  };
  CHECK(error_with(2, records[2]).empty());
  CHECK(
      contains(error_with(2, {"m/data/1", floats(6)}), "the record 'm/data/0' with its elements is missing"));
  CHECK(contains(error_with(2, {"m/data/0", floats(7)}),
                 "should have 6 elements of 4 bytes, but has 28 bytes"));
  CHECK(contains(error_with(2, {"m/data/0", floats(6) + "x"}), "should have 6 elements of 4 bytes"));
  CHECK(contains(error_with(2, {"m/data/0", ""}), "but has 0 bytes"));
  CHECK(contains(error_with(0, {"m/data.pk", ""}), "no PyTorch checkpoint: it has no data.pkl"));
  CHECK(contains(error_with(0, {"data.pkl", records[0].payload}),
                 "no data.pkl in its folder (but 'data.pkl')"));
  CHECK(contains(error_with(1, {"n/byteorder", "little"}), "'n/byteorder' lies outside the folder 'm/'"));
  CHECK(contains(error_with(1, {"n/data.pkl", records[0].payload}), "lies outside the folder"));
  CHECK(contains(error_with(1, {"mm/x", ""}), "lies outside the folder"));
  CHECK(contains(error_with(1, {"m/code/model.py", ""}), "a TorchScript archive"));
  CHECK(contains(error_with(0, {"m/data.pkl", records[0].payload + "."}), "1 bytes follow the pickle's end"));
  CHECK(contains(error_of_bytes(make_zip({}).bytes()), "a zip archive, but no PyTorch checkpoint"));
}

TEST_CASE("a pickle that is too large for a checkpoint is refused unread") {
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  auto records = checkpoint_records("\x80\x02", {});
  records[0].hole = uint64_t{1} << 40;
  make_zip(records).write(path);
  CHECK(contains(error_of([&] { Checkpoint::open(path); }), "data.pkl has 1099511627778 bytes, more than"));
}

TEST_CASE("records and offsets beyond 4 GiB are read in place") {
  constexpr int64_t half_tera = int64_t{1} << 38;  // elements of a record of 2^40 bytes
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  PickledTensor huge{.elements = half_tera + 2, .sizes = {half_tera + 1}, .strides = {1}, .offset = 1};
  PickledTensor after{.elements = 3, .sizes = {3}, .strides = {1}, .key = "1"};
  PickledTensor last = after;
  last.key = "2";
  auto pickle = pickle_of(pickled_dict(
      {{"huge", pickled_tensor(huge)}, {"after", pickled_tensor(after)}, {"last", pickled_tensor(last)}}));
  auto records = checkpoint_records(pickle, {floats(2), floats(3), floats(3)});
  records[2].hole = uint64_t{half_tera} * 4;
  make_zip(records).write(path);
  REQUIRE(std::filesystem::file_size(path) > uint64_t{1} << 40);

  Checkpoint checkpoint = Checkpoint::open(path);
  float values[3] = {};
  checkpoint.read_f32(*checkpoint.find("last"), 0, 3, values);
  CHECK(values[2] == 2);
  CheckpointOptions options;
  options.check_crc = false;
  Checkpoint unchecked = Checkpoint::open(path, options);
  const SourceTensor* tensor = unchecked.find("huge");
  REQUIRE(tensor->elements() == uint64_t{half_tera} + 1);
  unchecked.read_f32(*tensor, 0, 1, values);
  unchecked.read_f32(*tensor, half_tera, 1, values + 1);
  CHECK(values[0] == 1);
  CHECK(values[1] == 0);
}

TEST_CASE("more than 65,535 records") {
  constexpr int count = 66'000;
  std::vector<std::pair<std::string, std::string>> entries;
  std::vector<std::string> storages;
  for (int i = 0; i < count; i++) {
    PickledTensor spec{.elements = 1, .sizes = {}, .strides = {}, .key = std::to_string(i)};
    entries.emplace_back("t" + std::to_string(i), pickled_tensor(spec));
    storages.push_back(le(static_cast<float>(i)));
  }
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  write_file(path, make_zip(checkpoint_records(pickle_of(pickled_dict(entries)), storages)).bytes());
  Checkpoint checkpoint = Checkpoint::open(path);
  REQUIRE(checkpoint.tensors().size() == count);
  float value = 0;
  checkpoint.read_f32(*checkpoint.find("t65999"), 0, 1, &value);
  CHECK(value == 65999);
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
