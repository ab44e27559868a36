// Files for torch.load: read back here, and byte by byte what PyTorch needs, which no test can ask.
#include "model/checkpoint/pth_writer.h"

#include <doctest/doctest.h>

#include "model/checkpoint/zip.h"
#include "test/model/checkpoint/build.h"
#include "test/support.h"

TEST_SUITE_BEGIN("checkpoint");

namespace rwkv::test {
namespace {

const std::vector<float> values = {1, -2, 0.5f, 3, 1e-30f, -1e30f};

std::vector<PthTensor> two_tensors() {
  return {{"first", {2, 3}, values}, {"second.name", {1}, std::span(values).first(1)}};
}

/// Pushes a dense tensor, with the opcodes that torch.save takes for it.
std::string tensor_opcodes(const std::string& key, int32_t elements, const std::string& sizes,
                           const std::string& strides) {
  using namespace std::string_literals;
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + pickled("storage") + "ctorch\nFloatStorage\n" +
         pickled(key) + pickled("cpu") + "J" + le(elements) + "tQ" + "J\0\0\0\0"s + sizes + strides +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("pth writer: what is written reads back, by name or by place") {
  TemporaryDirectory directory;
  std::string path = directory / "file.pth";
  for (PthRoot root : {PthRoot::dict, PthRoot::list}) {
    write_pth(path, two_tensors(), root);
    CHECK(Checkpoint::open(path).is_list() == (root == PthRoot::list));
    std::vector<Content> contents = read_all(path);
    REQUIRE(contents.size() == 2);
    CHECK(contents[0].name == (root == PthRoot::list ? "0" : "first"));
    CHECK(contents[1].name == (root == PthRoot::list ? "1" : "second.name"));
    CHECK(contents[0].sizes == std::vector<int64_t>{2, 3});
    CHECK(contents[1].sizes == std::vector<int64_t>{1});
    std::string bytes = text_of(std::as_bytes(std::span(values)));
    CHECK(contents[0].elements == bytes);
    CHECK(contents[1].elements == bytes.substr(0, 4));
  }
}

TEST_CASE("pth writer: the records that PyTorch looks for, stored, each at a multiple of 64") {
  TemporaryDirectory directory;
  std::string path = directory / "file.pth";
  write_pth(path, two_tensors(), PthRoot::list);
  const std::string file = read_file(path);
  std::vector<ZipEntry> records = read_zip(as_bytes(file), path);
  std::vector<std::string> names;
  for (const ZipEntry& r : records) {
    names.push_back(r.name);
    CHECK(r.method == 0);
    CHECK(r.offset % 64 == 0);
  }
  CHECK(names == std::vector<std::string>{"archive/data.pkl", "archive/byteorder", "archive/data/0",
                                          "archive/data/1", "archive/version"});
  auto content = [&](size_t i) { return file.substr(records[i].offset, records[i].size); };
  CHECK(content(1) == "little");
  CHECK(content(4) == "3\n");
  using namespace std::string_literals;
  std::string two_three = "(J\2\0\0\0J\3\0\0\0t"s, three_one = "(J\3\0\0\0J\1\0\0\0t"s, one = "(J\1\0\0\0t"s;
  CHECK(content(0) == "\x80\x02](" + tensor_opcodes("0", 6, two_three, three_one) +
                          tensor_opcodes("1", 1, one, one) + "e.");
}

TEST_CASE("pth writer: it is one of those zip archives that every program reads") {
  TemporaryDirectory directory;
  std::string path = directory / "file.pth";
  write_pth(path, two_tensors(), PthRoot::dict);
  const std::string file = read_file(path);
  size_t end = file.size() - 22;  // the end record, without a comment
  CHECK(file.substr(end, 4) == "PK\x05\x06");
  CHECK(file.substr(end + 8, 4) == le(uint16_t{5}) + le(uint16_t{5}));
  uint32_t size = 0, begin = 0;
  std::memcpy(&size, file.data() + end + 12, 4);
  std::memcpy(&begin, file.data() + end + 16, 4);
  CHECK(begin + size == end);
  CHECK(file.substr(begin, 4) == "PK\x01\x02");
}

TEST_CASE("pth writer: nothing is left where it cannot write") {
  TemporaryDirectory directory;
  CHECK(
      !error_of([&] { write_pth(directory / "no folder/file.pth", two_tensors(), PthRoot::list); }).empty());
  CHECK(std::filesystem::is_empty(directory / ""));
}

}  // namespace rwkv::test

TEST_SUITE_END();
