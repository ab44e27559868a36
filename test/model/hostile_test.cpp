// Files that claim more than they hold.
#include <doctest/doctest.h>

#include "core/memory.h"
#include "model/checkpoint/detect.h"
#include "model/checkpoint/state_checkpoint.h"
#include "model/config.h"
#include "test/model/checkpoint/build.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

// A checkpoint of tensors that all view one storage of 6 floats.
std::string write_checkpoint(const std::string& path,
                             const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors) {
  std::vector<std::pair<std::string, std::string>> entries;
  for (const auto& [name, sizes] : tensors) {
    PickledTensor tensor;
    tensor.sizes = sizes;
    tensor.strides.assign(sizes.size(), 0);
    entries.emplace_back(name, pickled_tensor(tensor));
  }
  make_zip(checkpoint_records(pickle_of(pickled_dict(entries)), {floats(6)})).write(path);
  return path;
}

}  // namespace

TEST_CASE("a state that claims gigabytes from a few bytes is refused before it is read") {
  TemporaryDirectory directory;
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{16384, 256, 256}, {1, 10000, 10000}, {0, 8, 8}, {2, 0, 0}, {1, 257, 257}}) {
    std::string path = write_checkpoint(directory / "s.pth", {{"blocks.0.att.time_state", sizes}});
    CHECK(error_of([&] { convert_state(Checkpoint::open(path), directory / "out"); }) != "");
  }
}

TEST_CASE("a model whose tensors claim far more than the file is refused") {
  TemporaryDirectory directory;
  std::string path = write_checkpoint(directory / "m.pth", {{"emb.weight", {int64_t{1} << 24, 1024}}});
  std::string error = error_of([&] { ModelCheckpoint model(Checkpoint::open(path)); });
  CHECK(contains(error, "claim far more"));
}

TEST_CASE("absurd layer numbers are no layers") {
  TemporaryDirectory directory;
  std::string path = write_checkpoint(
      directory / "m.pth", {{"blocks.9223372036854775807.att.key.weight", {2, 2}}, {"emb.weight", {2, 2}}});
  CHECK(contains(error_of([&] { ModelCheckpoint model(Checkpoint::open(path)); }), "is missing"));
}

TEST_CASE("sizes that a version does not have must be 0") {
  Config v7{.version = Version::v7, .n_layer = 2, .n_embd = 64, .n_att = 64, .n_ffn = 64, .n_vocab = 10};
  v7.head_size = 32;
  CHECK(error_of([&] { check_config(v7, "f"); }) == "");
  Config one_layer = v7;
  one_layer.n_layer = 1;
  one_layer.v_rank = 1 << 26;
  CHECK(error_of([&] { check_config(one_layer, "f"); }) != "");
  Config mixed = v7;
  mixed.mix_rank = 32;
  CHECK(error_of([&] { check_config(mixed, "f"); }) != "");
  Config v4 = v7;
  v4.version = Version::v4;
  CHECK(error_of([&] { check_config(v4, "f"); }) != "");
}

TEST_CASE("what does not fit into memory is refused with both numbers") {
  CHECK(available_memory() > 0);
  CHECK(error_of([] { check_memory(1, "f", "advice"); }) == "");
  std::string error = error_of([] { check_memory(uint64_t{1} << 60, "f", "advice"); });
  CHECK(error.starts_with("f: needs 1152921504.6 GB of memory, "));
  CHECK(error.ends_with("; advice"));
}

}  // namespace rwkv::test

TEST_SUITE_END();
