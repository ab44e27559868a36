// States as .pth files: those of the Python package and trained ones, in and out.
#include "model/checkpoint/state_checkpoint.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "model/checkpoint/detect.h"
#include "model/checkpoint/pth_writer.h"
#include "model/checkpoint/zip.h"
#include "model/state.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/model/reference_set.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};

/// The package's list for a model: sizes and values of its tensors.
struct List {
  std::vector<std::vector<int64_t>> sizes;
  std::vector<std::vector<float>> values;

  void add(std::vector<int64_t> size, std::vector<float> value) {
    sizes.push_back(std::move(size));
    values.push_back(std::move(value));
  }
  void write(const std::string& path) const {
    std::vector<PthTensor> tensors;
    for (size_t i = 0; i < sizes.size(); i++) tensors.push_back({"", sizes[i], values[i]});
    write_pth(path, tensors, PthRoot::list);
  }
};

/// What the package would have of our state: att_xx; aa, bb, pp or att_kv; ffn_xx.
List package_list(const State& state) {
  const Config& c = state.model().config();
  auto ours = values_of(state);
  List list;
  for (size_t layer = 0; layer < static_cast<size_t>(c.n_layer); layer++) {
    const std::vector<float>& att = ours[3 * layer + 1];
    list.add({c.n_embd}, ours[3 * layer]);
    if (c.version == Version::v4) {
      for (int64_t i = 0; i < 3; i++)
        list.add({c.n_att}, {att.begin() + i * c.n_att, att.begin() + (i + 1) * c.n_att});
    } else {
      std::vector<float> turned = att;
      auto n = static_cast<size_t>(c.head_size);
      for (size_t i = 0; i < att.size() && c.version == Version::v7; i++)  // [head, value, key]
        turned[i / (n * n) * n * n + i % n * n + i / n % n] = att[i];
      list.add({c.heads(), c.head_size, c.head_size}, turned);
    }
    list.add({c.n_embd}, ours[3 * layer + 2]);
  }
  return list;
}

struct Fixture {
  TemporaryDirectory directory;
  std::string pth = directory / "list.pth", file = directory / "state", again = directory / "again.pth";

  [[nodiscard]] std::shared_ptr<const Model> model(const ModelShape& shape) const {
    write_checkpoint(directory / "model.pth", make_checkpoint(shape));
    return load_checkpoint(directory / "model.pth", "cpu fp32");
  }
  /// The message without the path; "" when the list is read.
  [[nodiscard]] std::string refusal(const Config& config) const {
    std::string error = error_of([&] { convert_state(Checkpoint::open(pth), file, &config); });
    return error.starts_with(pth + ": ") ? error.substr(pth.size() + 2) : error;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "package state: what the package saved goes on here as our own state does") {
  size_t lists = 0;
  for (const ReferenceSet& set : reference_sets()) {
    for (const std::string& name : set.names) {
      std::string list = set.list(name);
      if (list.empty()) continue;
      CAPTURE(name);
      lists++;
      auto model = load_checkpoint(set.model(name), "cpu fp32");
      State own(model);
      run(model, set.tokens, 256, own);
      convert_state(Checkpoint::open(list), file, &model->config(), "NAME");
      State imported = load_session(file, model).state;
      auto expected = values_of(own), actual = values_of(imported);
      for (size_t i = 0; i < expected.size(); i++) CHECK(relative_error(actual[i], expected[i]) <= 1e-5);
      State direct = load_session(list, model).state;
      CHECK(same_bits(direct, imported));
      CHECK(relative_error(run(model, set.tokens, 1, imported), run(model, set.tokens, 1, own)) <= 1e-5);
    }
  }
  CHECK(lists >= 4);
}

TEST_CASE_FIXTURE(Fixture, "package state: what is exported is the package's list, and comes back the same") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    auto loaded = model({.version = version});
    Session session{State(loaded), tokens, {}};
    run(loaded, tokens, 8, session.state);
    save_session(file, session);
    write_state_checkpoint(pth, read_state_file(MappedFile::open(file)));
    package_list(session.state).write(again);
    CHECK(read_file(pth) == read_file(again));
    convert_state(Checkpoint::open(pth), file, &loaded->config(), "model.pth");
    std::string note;
    Session back = load_session(file, loaded, &note);
    CHECK(note == "");
    CHECK(same_bits(back.state, session.state));
    CHECK(back.tokens.empty());
    CHECK(back.logits.empty());
    CHECK(same_bits(load_session(pth, loaded, &note).state, session.state));
    CHECK(note == "the state tells neither its model nor its text");
  }
}

TEST_CASE_FIXTURE(Fixture, "package state: the list of another model is refused, and the place is told") {
  auto v4 = model({.version = Version::v4}), v6 = model({.version = Version::v6}), v7 = model({});
  auto deeper = model({.layers = 3}), wider = model({.embd = 24}), other_heads = model({.head = 4});
  package_list(State(v7)).write(pth);
  CHECK(refusal(v7->config()) == "");
  CHECK(refusal(v6->config()) == "");  // which has the same sizes
  CHECK(refusal(v4->config()) ==
        "a list of 6 tensors, but the state of RWKV-4 with 2 layers has 10: the state of another model, or "
        "none");
  CHECK(contains(refusal(deeper->config()),
                 "a list of 6 tensors, but the state of RWKV-7 with 3 layers has 9"));
  CHECK(contains(refusal(wider->config()),
                 "tensor 0 of the list is [16], but att_xx of layer 0 of the model is [24]"));
  CHECK(contains(refusal(other_heads->config()),
                 "tensor 1 of the list is [2, 8, 8], but att_kv of layer 0 of the model is [4, 4, 4]"));
  package_list(State(v4)).write(pth);
  CHECK(contains(refusal(v7->config()), "a list of 10 tensors, but the state of RWKV-7 with 2 layers has 6"));
  std::string error = error_of([&] { load_session(pth, v7); });
  CHECK(contains(error, "a list of 10 tensors"));
  CHECK(
      contains(error_of([&] { convert_state(Checkpoint::open(pth), file); }), "does not say of which model"));
}

TEST_CASE_FIXTURE(Fixture, "package state: damaged lists are refused in one line") {
  auto loaded = model({});
  const List whole = package_list(State(loaded));
  const Config& config = loaded->config();
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    List list = whole;
    list.values[4][7] = bad;
    list.write(pth);
    CHECK(refusal(config) == "tensor '4' holds NaN or infinite values: the state is useless");
  }
  List missing = whole;
  missing.sizes.pop_back();
  missing.write(pth);
  CHECK(contains(refusal(config), "a list of 5 tensors, but the state of RWKV-7 with 2 layers has 6"));
  List swapped = whole;
  std::swap(swapped.sizes[0], swapped.sizes[1]);
  std::swap(swapped.values[0], swapped.values[1]);
  swapped.write(pth);
  CHECK(contains(refusal(config), "tensor 0 of the list is [2, 8, 8], but att_xx"));
  whole.write(pth);
  const std::string bytes = read_file(pth);
  size_t taken = 0;
  for (size_t size = 0; size < bytes.size(); size += 7) {
    write_file(pth, std::string_view(bytes).substr(0, size));
    std::string error = error_of([&] { convert_state(Checkpoint::open(pth), file, &config); });
    taken += error.empty() || error.find('\n') != std::string::npos ? 1 : 0;
  }
  CHECK(taken == 0);
  std::string flipped = bytes;
  size_t payload = read_zip(as_bytes(bytes), pth)[3].offset;
  flipped[payload] = static_cast<char>(flipped[payload] ^ 1);
  write_file(pth, flipped);
  CHECK(contains(refusal(config), "record 'archive/data/1' is damaged"));
  make_zip(checkpoint_records(pickle_of(pickled_list({pickled_tensor(), "N"})), {floats(6)})).write(pth);
  CHECK(contains(refusal(config), "holds a list, not a dict of tensors"));
  CHECK(!std::filesystem::exists(file));
}

TEST_CASE_FIXTURE(Fixture, "package state: a model is no list, and a list no model") {
  auto loaded = model({});
  package_list(State(loaded)).write(pth);
  CHECK(contains(error_of([&] { ModelCheckpoint model(Checkpoint::open(pth)); }),
                 "holds a list of tensors, as the Python package's states are, where a model is expected"));
  pth = directory / "model.pth";
  CHECK(contains(refusal(loaded->config()), "not a state file: it has a tensor 'emb.weight'"));
}

TEST_CASE_FIXTURE(Fixture, "package state: 16-bit values are widened") {
  auto loaded = model({.version = Version::v6, .layers = 1});
  std::vector<std::string> items;
  std::string zeros(64, '\0'), ones, matrices(512, '\0');
  for (int i = 0; i < 16; i++) ones += le(uint16_t{0x3c00});  // 1 in fp16
  items.push_back(pickled_tensor({.elements = 16, .sizes = {16}, .strides = {1}, .storage = "HalfStorage"}));
  items.push_back(pickled_tensor({.elements = 128, .sizes = {2, 8, 8}, .strides = {64, 8, 1}, .key = "1"}));
  items.push_back(pickled_tensor({.elements = 16, .sizes = {16}, .strides = {1}, .key = "2"}));
  make_zip(checkpoint_records(pickle_of(pickled_list(items)), {ones, matrices, zeros})).write(pth);
  CHECK(refusal(loaded->config()) == "");
  CHECK(values_of(load_session(file, loaded).state)[0] == std::vector<float>(16, 1.0f));
}

TEST_CASE_FIXTURE(Fixture, "trained state: exported and converted again, it is the same file") {
  write_checkpoint(pth, make_state_checkpoint(3, 2, 8));
  convert_state(Checkpoint::open(pth), file);
  const std::string before = read_file(file);
  write_state_checkpoint(pth, read_state_file(MappedFile::open(file)));
  CHECK(is_state_checkpoint(Checkpoint::open(pth)));
  convert_state(Checkpoint::open(pth), file);
  CHECK(read_file(file) == before);
}

}  // namespace rwkv::test

TEST_SUITE_END();
