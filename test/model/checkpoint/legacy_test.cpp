// Files from before PyTorch 1.6.
#include "model/checkpoint/legacy.h"

#include <doctest/doctest.h>

#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

using namespace std::string_literals;

/// The parts of such a file; each can be replaced.
struct LegacyFile {
  std::string magic = pickle_of("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  std::string version = pickle_of(pickled(1001));
  std::string machine =
      pickle_of(pickled_dict({{"protocol_version", pickled(1001)}, {"little_endian", "\x88"}}));
  std::string object =
      pickle_of(pickled_dict({{"x", pickled_tensor()}, {"y", pickled_tensor({.key = "1"})}}));
  std::string keys = pickle_of(pickled_list({pickled("0"), pickled("1")}));
  std::string storages = le(int64_t{6}) + floats(6) + le(int64_t{6}) + floats(6);

  [[nodiscard]] std::string bytes() const { return magic + version + machine + object + keys + storages; }
  [[nodiscard]] std::string error() const { return error_of_bytes(bytes()); }
};

std::string storage_with_view(const std::string& view) {
  return pickled_tuple({pickled("storage"), pickled_global("torch", "FloatStorage"), pickled("0"),
                        pickled("cpu"), pickled(6), view}) +
         "Q";
}

std::string file_with_view(const std::string& view, int64_t elements) {
  LegacyFile file;
  auto tensor = pickled_call(
      pickled_global("torch._utils", "_rebuild_tensor"),
      {storage_with_view(view), pickled(1), pickled_tuple({pickled(elements)}), pickled_tuple({pickled(1)})});
  file.object = pickle_of(pickled_dict({{"x", tensor}}));
  file.keys = pickle_of(pickled_list({pickled("0")}));
  file.storages = le(int64_t{6}) + floats(6);
  return file.bytes();
}

TEST_CASE("a file from before PyTorch 1.6") {
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  write_file(path, LegacyFile().bytes());
  auto contents = read_all(path);
  REQUIRE(contents.size() == 2);
  CHECK(contents[1].name == "y");
  CHECK(contents[1].elements == floats(6));
  CHECK(contents[0].sizes == std::vector<int64_t>{2, 3});
}

TEST_CASE("its storages must be those that the object speaks of") {
  LegacyFile file;
  file.keys = pickle_of(pickled_list({pickled("0")}));
  file.storages = le(int64_t{6}) + floats(6);
  CHECK(contains(file.error(), "tensor 'y': its storage is missing"));
  file = {};
  file.keys = pickle_of(pickled_list({pickled("0"), pickled("2")}));
  CHECK(contains(file.error(), "lists a storage that nothing uses"));
  file.keys = pickle_of(pickled_list({pickled("0"), pickled(1)}));
  CHECK(contains(file.error(), "lists a storage that nothing uses"));
  file.keys = pickle_of(pickled_list({pickled("0"), pickled("0")}));
  CHECK(contains(file.error(), "storage '0' stands twice"));
  file.keys = pickle_of(pickled("0"));
  CHECK(contains(file.error(), "has no list of storages"));
  file = {};
  file.storages += "?";
  CHECK(contains(file.error(), "1 bytes follow the last storage"));
  file = {};
  file.object = pickle_of(pickled_dict(
      {{"x", pickled_tensor()}, {"y", pickled_tensor({.elements = 12, .storage = "HalfStorage"})}}));
  CHECK(contains(file.error(), "storage '0' is described in two ways"));
}

TEST_CASE("numbers of elements that do not fit") {
  for (int64_t count :
       {int64_t{0}, int64_t{5}, int64_t{7}, int64_t{-1}, INT64_MAX, INT64_MIN, int64_t{1} << 62}) {
    LegacyFile file;
    file.storages = le(int64_t{6}) + floats(6) + le(count) + floats(6);
    CHECK(contains(file.error(), "storage '1' at byte "));
  }
  LegacyFile file;
  file.object = pickle_of(pickled_dict({{"x", pickled_tensor({.elements = INT64_MAX})}}));
  file.keys = pickle_of(pickled_list({pickled("0")}));
  file.storages = le(INT64_MAX) + floats(6);
  CHECK(contains(file.error(), "24 bytes are left in the file: it may be cut off"));
}

TEST_CASE("what the pickles before the object say") {
  LegacyFile file;
  file.version = pickle_of(pickled(1002));
  CHECK(contains(file.error(), "its protocol version is not 1001"));
  file.version = pickle_of("N");
  CHECK(contains(file.error(), "its protocol version is not 1001"));
  file = {};
  file.machine = pickle_of(pickled_dict({{"little_endian", "\x89"}}));
  CHECK(contains(file.error(), "was written on a big-endian machine"));
  for (const std::string& machine : {"}"s, "N"s, pickled_dict({{"little_endian", "N"}})}) {
    file.machine = pickle_of(machine);
    CHECK(contains(file.error(), "does not say for which machine it was written"));
  }
  file = {};
  file.magic = pickle_of("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x20");
  CHECK(contains(file.error(), "a pickle, but not one that torch.save wrote"));
}

TEST_CASE("views of storages, as the oldest files have them") {
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  auto view = [](int64_t begin, int64_t size) {
    return pickled_tuple({pickled("9"), pickled(begin), pickled(size)});
  };
  write_file(path, file_with_view(view(2, 4), 3));
  CHECK(read_all(path).at(0).elements == floats(6).substr(12));
  CHECK(contains(error_of_bytes(file_with_view(view(2, 3), 3)),
                 "its last element would be number 3 of a storage of 3"));
  for (auto [begin, size] :
       {std::pair{int64_t{3}, int64_t{4}}, {int64_t{7}, int64_t{0}}, {INT64_MAX, INT64_MAX}}) {
    CHECK(contains(error_of_bytes(file_with_view(view(begin, size), 3)),
                   "it views elements beyond its storage"));
  }
  CHECK(contains(error_of_bytes(file_with_view(view(-1, 4), 3)), "has an int as its view's begin"));
  CHECK(contains(error_of_bytes(file_with_view(pickled_tuple({}), 3)),
                 "has a view of a storage that is no tuple"));
}

TEST_CASE("a pickled module is refused with its class or its code") {
  LegacyFile file;
  auto module = pickled_tuple({pickled("module"), pickled_global("__main__", "RWKV"), "N", "N"}) + "Q)\x81";
  file.object = pickle_of(module);
  CHECK(contains(file.error(), "its pickle asks for '__main__.RWKV', which is refused"));
  file.object = pickle_of(pickled_tuple({pickled("module"), "N", "N", "N"}) + "Q)\x81");
  CHECK(contains(file.error(), "holds an object, not a dict of tensors"));
  file.object = pickle_of(pickled_dict(
      {{"x", pickled_tensor()}, {"m", pickled_tuple({pickled("module"), "N", "N", "N"}) + "Q"}}));
  CHECK(contains(file.error(), "holds a pickled module with its code"));
}

TEST_CASE("a file from before PyTorch 1.6 cut at every byte is refused") {
  std::string bytes = LegacyFile().bytes();
  for (size_t size = 0; size < bytes.size(); size++)
    CHECK_FALSE(error_of_bytes(bytes.substr(0, size)).empty());
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
