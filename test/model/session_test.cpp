// State files: saved sessions and trained initial states.
#include "model/state.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/crc32.h"
#include "model/checkpoint/convert.h"
#include "model/checkpoint/state_checkpoint.h"
#include "test/core/unprivileged.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/model/memory_file.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

namespace fs = std::filesystem;

const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};

struct Fixture {
  TemporaryDirectory directory;
  std::string path = directory / "session", pth = directory / "state.pth";

  [[nodiscard]] std::shared_ptr<const Model> model(const ModelShape& shape,
                                                   const std::string& strategy = "cpu fp32") const {
    write_checkpoint(directory / "model.pth", make_checkpoint(shape));
    return load_checkpoint(directory / "model.pth", strategy);
  }
  [[nodiscard]] static Session session(const std::shared_ptr<const Model>& model) {
    Session s{State(model), tokens, {}};
    std::vector<float> logits = run(model, tokens, 8, s.state);
    s.logits.assign(logits.end() - 20, logits.end());
    return s;
  }
  /// The message without the path; "" when it is loaded.
  [[nodiscard]] static std::string refusal(const std::shared_ptr<const Model>& model,
                                           const std::string& file) {
    std::string error = error_of([&] { load_session(file, model); });
    return error.starts_with(file + ": ") ? error.substr(file.size() + 2) : error;
  }
};

/// The file with one of its tensors changed, and the checksum with it.
std::string with_changed(const std::string& file, const std::string& name,
                         const std::function<void(std::string&)>& change) {
  TensorFileHeader header = parse_tensor_file(as_bytes(file), "f");
  std::string data;
  for (TensorEntry& e : header.entries) {
    std::string bytes = file.substr(header.data_begin + e.offset, e.bytes);
    if (e.name == name) change(bytes);
    for (auto& [key, value] : header.metadata) {
      if (key == checksum_key(e.name)) value = checksum_text(crc32(as_bytes(bytes)));
    }
    data += bytes;
  }
  return make_tensor_file_header(header.metadata, header.entries) + data;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "session: what was saved comes back, and goes on with the same bits") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    auto loaded = model({.version = version});
    Session saved = session(loaded);
    save_session(path, saved);
    std::string note;
    Session again = load_session(path, loaded, &note);
    CHECK(note.empty());
    CHECK(same_bits(again.state, saved.state));
    CHECK(again.tokens == saved.tokens);
    CHECK(same_bits(again.logits, saved.logits));
    CHECK(same_bits(run(loaded, tokens, 3, again.state), run(loaded, tokens, 1, saved.state)));
  }
}

TEST_CASE_FIXTURE(Fixture, "session: one without tokens and logits, and one that replaces another") {
  auto loaded = model({});
  save_session(path, {State(loaded), {}, {}});
  Session empty = load_session(path, loaded);
  CHECK(same_bits(empty.state, State(loaded)));
  CHECK(empty.tokens.empty());
  CHECK(empty.logits.empty());
  save_session(path, session(loaded));
  CHECK(load_session(path, loaded).tokens == tokens);
}

TEST_CASE_FIXTURE(Fixture, "session: any strategy of the same model can go on, and other sources are named") {
  auto loaded = model({});
  Session saved = session(loaded);
  save_session(path, saved);
  auto other = model({}, "cpu bf16i8 *1 -> cpu fp16");
  CHECK(same_bits(load_session(path, other).state, saved.state));
  write_checkpoint(directory / "other name.pth", make_checkpoint({.seed = 2}));
  std::string note;
  load_session(path, load_checkpoint(directory / "other name.pth", "cpu fp32"), &note);
  CHECK(note == "warning: the session was saved with 'model.pth', the model is 'other name.pth'");
}

TEST_CASE_FIXTURE(Fixture, "session: one of another version or shape is refused, and the model's is told") {
  save_session(path, session(model({})));
  for (const ModelShape& shape :
       {ModelShape{.layers = 1}, {.layers = 3}, {.embd = 24}, {.head = 4}, {.head = 16}}) {
    std::string error = refusal(model(shape), path);
    CHECK(contains(error, "the state of another model: this one is RWKV-7 with " +
                              std::to_string(shape.layers) + " layers, " +
                              std::to_string(shape.embd / shape.head) + " heads of size " +
                              std::to_string(shape.head) + ", n_embd " + std::to_string(shape.embd)));
    CHECK(contains(error, "the file, of model.pth, has 2 layers"));
  }
  CHECK(contains(refusal(model({.vocab = 21}), path), "the state of another model"));  // by its logits
  CHECK(contains(refusal(model({.version = Version::v6}), path), "a session of RWKV-7, the model is RWKV-6"));
  Session no_logits = session(model({}));
  no_logits.logits.clear();
  save_session(path, no_logits);
  CHECK(contains(refusal(model({.vocab = 9}), path), "the state of another model"));  // by a token
  CHECK(refusal(model({.vocab = 10}), path).empty());
}

TEST_CASE_FIXTURE(Fixture, "session: every cut and every flipped bit is refused, or changes nothing") {
  auto loaded = model({.version = Version::v4, .layers = 1, .embd = 4, .ffn = 4, .vocab = 20});
  Session saved = session(loaded);
  save_session(path, saved);
  const std::string bytes = read_file(path);
  MemoryFile file(bytes);
  size_t taken = 0, unequal = 0;
  for (size_t i = 0; i < bytes.size(); i++) {
    char flipped = static_cast<char>(bytes[i] ^ (1 << i % 8));
    file.write(i, {&flipped, 1});
    try {
      Session opened = load_session(file.path(), loaded);
      bool equal = same_bits(opened.state, saved.state) && opened.tokens == saved.tokens &&
                   same_bits(opened.logits, saved.logits);
      unequal += equal ? 0 : 1;
    } catch (const Error&) {
    }
    file.write(i, {&bytes[i], 1});
  }
  for (size_t size = bytes.size(); size-- > 0;) {
    file.resize(size);
    taken += refusal(loaded, file.path()).empty() ? 1 : 0;
  }
  CHECK(taken == 0);
  CHECK(unequal == 0);
}

TEST_CASE_FIXTURE(Fixture, "session: NaN and infinite values are refused, and the tensor is named") {
  auto loaded = model({});
  save_session(path, session(loaded));
  const std::string bytes = read_file(path);
  for (const std::string name :
       {"blocks.0.att.time_state", "blocks.1.att.shift", "blocks.1.ffn.shift", "logits"}) {
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      write_file(path, with_changed(bytes, name,
                                    [&](std::string& values) { patch(values, values.size() - 4, bad); }));
      CHECK(refusal(loaded, path) ==
            "tensor '" + name + "' holds NaN or infinite values: the state is useless");
    }
  }
  for (int32_t bad : {-1, 20, INT32_MIN}) {
    write_file(path, with_changed(bytes, "tokens", [&](std::string& values) { patch(values, 4, bad); }));
    CHECK(refusal(loaded, path) ==
          "token " + std::to_string(bad) + " is none of the model's 20: damaged, or made by another program");
  }
}

TEST_CASE_FIXTURE(Fixture, "session: it never replaces the model, and a failure leaves the old one") {
  write_checkpoint(directory / "model.pth", make_checkpoint({}));
  std::string file = directory / "model.rwkv";
  convert_model(Checkpoint::open(directory / "model.pth"), file, {});
  auto loaded = load_file(file);
  Session saved = session(loaded);
  std::string before = read_file(file);
  fs::create_hard_link(file, directory / "hard");
  fs::create_symlink(file, directory / "symbolic");
  for (const std::string name : {"model.rwkv", "hard", "symbolic"}) {
    CHECK(!error_of([&] { save_session(directory / name, saved); }).empty());
  }
  CHECK(read_file(file) == before);
  write_file(path, "old");
  fs::permissions(path, fs::perms::owner_read);
  {
    Unprivileged bound;
    CHECK(contains(error_of([&] { save_session(path, saved); }), "is write-protected"));
  }
  CHECK(read_file(path) == "old");
}

TEST_CASE_FIXTURE(Fixture, "session: files of other kinds are told apart") {
  auto loaded = model({});
  convert_model(Checkpoint::open(directory / "model.pth"), directory / "model.rwkv", {});
  CHECK(refusal(loaded, directory / "model.rwkv") == "a model, where a state file is expected");
  CHECK(contains(refusal(loaded, directory / "model.pth"),
                 "not a state file: it has a tensor 'emb.weight', where a state has only"));
  save_session(path, session(loaded));
  CHECK(contains(error_of([&] { ModelFile::open(path); }), "a state, where a model is expected"));
  std::vector<TensorEntry> none;
  write_file(path, make_tensor_file_header({{"format", "pt"}}, none));
  CHECK(contains(refusal(loaded, path), "not a state file of this program"));
  write_file(path, make_tensor_file_header({{"rwkv.format", "2"}, {"rwkv.kind", "state"}}, none));
  CHECK(contains(refusal(loaded, path), "written in format 2, this program reads format 1"));
  write_file(path, "");
  CHECK(!refusal(loaded, path).empty());
  write_file(path, "What was said yesterday.\n");
  CHECK(refusal(loaded, path)
            .starts_with("no state and no conversation, but a text file, not a PyTorch checkpoint (it begins "
                         "'What was said"));
  CHECK(contains(refusal(loaded, directory / "none"), "cannot open the file"));
}

TEST_CASE_FIXTURE(Fixture,
                  "initial state: from .pth and converted it is the same, in every version of its shape") {
  CheckpointTensors tensors = make_state_checkpoint(2, 2, 8);
  write_checkpoint(pth, tensors);
  StateFile written = convert_state(Checkpoint::open(pth), path);
  CHECK(written.layers.size() == 2);
  CHECK(written.heads == 2);
  CHECK(written.head_size == 8);
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    auto loaded = model({.version = version});
    if (version == Version::v4) {
      CHECK(contains(refusal(loaded, pth), "this model is RWKV-4, which has none"));
      CHECK(contains(refusal(loaded, path), "this model is RWKV-4, which has none"));
      continue;
    }
    Session direct = load_session(pth, loaded), converted = load_session(path, loaded);
    CHECK(same_bits(direct.state, converted.state));
    CHECK(direct.tokens.empty());
    auto values = values_of(direct.state);
    for (size_t i : {0, 2, 3, 5}) CHECK(values[i] == std::vector<float>(16));
    const auto& source = tensor_of(tensors, "blocks.1.att.time_state").values;
    CHECK(values[4][(8 + 3) * 8 + 5] == source[(8 + 5) * 8 + 3]);
  }
}

TEST_CASE_FIXTURE(Fixture, "initial state: notes tell the orientation and a clash of names") {
  for (const std::string name : {"rwkv-x060-qa.pth", "plain.pth", "rwkv-x060-\x1b[2J.pth"}) {
    pth = directory / name;
    write_checkpoint(pth, make_state_checkpoint(2, 2, 8));
    convert_state(Checkpoint::open(pth), path);
    for (const std::string& file : {pth, path}) {
      std::string note6, note7;
      load_session(file, model({.version = Version::v6}), &note6);
      load_session(file, model({.version = Version::v7}), &note7);
      CHECK(contains(note6, "transposed for RWKV-5 and 6"));
      CHECK(contains(note7, "as RWKV-7 uses it"));
      CHECK_FALSE(contains(note6, "warning"));
      CHECK(contains(note7, "speaks of RWKV-6, but the model is RWKV-7") == (name != "plain.pth"));
      CHECK(contains(note7, "warning: the name 'rwkv-x060-qa.pth' speaks") == (name == "rwkv-x060-qa.pth"));
      CHECK_FALSE(contains(note6 + note7, "\x1b"));  // for a terminal
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "initial state: what is none, or of another model, is refused") {
  auto loaded = model({});
  auto refused = [&](const CheckpointTensors& tensors) {
    write_checkpoint(pth, tensors);
    std::string error = refusal(loaded, pth);
    CHECK(!error_of([&] { convert_state(Checkpoint::open(pth), path); }).empty());
    return error;
  };
  CheckpointTensors missing = make_state_checkpoint(3, 2, 8);
  remove_tensor(missing, "blocks.1.att.time_state");
  CHECK(refused(missing) == "tensor 'blocks.1.att.time_state' is missing");
  CheckpointTensors oblong = make_state_checkpoint(2, 2, 8);
  resize_tensor(oblong, "blocks.1.att.time_state", {2, 8, 4});
  CHECK(contains(refused(oblong),
                 "'blocks.1.att.time_state' is [2, 8, 4], a state is [heads, head size, head"));
  CheckpointTensors uneven = make_state_checkpoint(2, 2, 8);
  resize_tensor(uneven, "blocks.1.att.time_state", {4, 4, 4});
  CHECK(contains(refused(uneven), "'blocks.1.att.time_state' is [4, 4, 4]"));
  CheckpointTensors more = make_state_checkpoint(2, 2, 8);
  more.push_back({"blocks.0.att.key.weight", {1}, {1}, DType::f32});
  CHECK(contains(refused(more), "not a state file: it has a tensor"));
  CheckpointTensors nan = make_state_checkpoint(2, 2, 8);
  nan[1].values[100] = NAN;
  CHECK(contains(refused(nan), "tensor 'blocks.1.att.time_state' holds NaN"));
  CHECK(!fs::exists(path));

  struct Shape {
    int64_t layers, heads, size;
  };
  for (auto [layers, heads, size] : {Shape{1, 2, 8}, {3, 2, 8}, {2, 4, 4}, {2, 1, 16}, {2, 3, 8}}) {
    write_checkpoint(pth, make_state_checkpoint(layers, heads, size));
    convert_state(Checkpoint::open(pth), path);
    CHECK(contains(refusal(loaded, pth),
                   "the state of another model: this one is RWKV-7 with 2 layers, 2 heads"));
    CHECK(contains(refusal(loaded, path), "the state of another model"));
  }
  std::string before = read_file(pth);
  CHECK(!error_of([&] { convert_state(Checkpoint::open(pth), pth); }).empty());
  CHECK(read_file(pth) == before);
}

}  // namespace rwkv::test

TEST_SUITE_END();
