// Which model a checkpoint holds, and what is refused.
#include "model/checkpoint/detect.h"

#include <doctest/doctest.h>

#include "model/checkpoint/convert.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

Config config_of(const CheckpointTensors& tensors) {
  TemporaryDirectory directory;
  write_checkpoint(directory / "m.pth", tensors);
  Checkpoint checkpoint = Checkpoint::open(directory / "m.pth");
  return ModelCheckpoint(checkpoint).config();
}

/// The message without the path; "" when the checkpoint is taken.
std::string refusal(const CheckpointTensors& tensors) {
  TemporaryDirectory directory;
  std::string path = directory / "m.pth";
  write_checkpoint(path, tensors);
  Checkpoint checkpoint = Checkpoint::open(path);
  std::string error = error_of([&] { ModelCheckpoint model(checkpoint); });
  if (error.empty()) return "";
  if (!error.starts_with(path + ": ") || error.find('\n') != std::string::npos)
    return "badly worded: " + error;
  return error.substr(path.size() + 2);
}

CheckpointTensors with_prefix(CheckpointTensors tensors, const std::string& prefix) {
  for (CheckpointTensor& t : tensors) t.name = prefix + t.name;
  return tensors;
}

CheckpointTensor extra(const std::string& name) { return {name, {2}, {0, 0}, DType::f32}; }

}  // namespace

TEST_CASE("detect: version and shape of every version") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    Config c = config_of(make_checkpoint({.version = version, .layers = 3}));
    bool v6 = version == Version::v6, v7 = version == Version::v7;
    CHECK(c.version == version);
    CHECK(c.n_layer == 3);
    CHECK(c.layers() == 4);
    CHECK(c.n_embd == 16);
    CHECK(c.n_att == 16);
    CHECK(c.n_ffn == 24);
    CHECK(c.n_vocab == 20);
    CHECK(c.head_size == (version == Version::v4 ? 0 : 8));
    CHECK(c.heads() == (version == Version::v4 ? 0 : 2));
    CHECK(c.mix_rank == (v6 ? 3 : 0));
    CHECK(c.decay_rank == (v6 ? 5 : v7 ? 4 : 0));
    CHECK(c.a_rank == (v7 ? 5 : 0));
    CHECK(c.v_rank == (v7 ? 3 : 0));
    CHECK(c.g_rank == (v7 ? 7 : 0));
    CHECK_FALSE(c.has_time_state);
  }
}

TEST_CASE("detect: the type of the matrices, when all have one") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    for (DType type : {DType::f32, DType::f16, DType::bf16}) {
      CheckpointTensors tensors = make_checkpoint({.version = version, .dtype = type});
      tensor_of(tensors, "emb.weight").dtype = DType::f32;  // no matrix that is multiplied
      tensor_of(tensors, "ln_out.bias").dtype = DType::f32;
      CHECK(config_of(tensors).weights == type);
      tensor_of(tensors, "head.weight").dtype = type == DType::bf16 ? DType::f16 : DType::bf16;
      CHECK(config_of(tensors).weights == DType::f32);
    }
  }
}

TEST_CASE("detect: any order of tensors, one head, one layer, more than ten layers") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    CheckpointTensors tensors = make_checkpoint({.version = version, .layers = 12});
    Config c = config_of(tensors);
    std::reverse(tensors.begin(), tensors.end());
    CHECK(config_of(tensors) == c);
    CHECK(c.n_layer == 12);
    Config small = config_of(make_checkpoint({.version = version, .layers = 1, .head = 16}));
    CHECK(small.n_layer == 1);
    CHECK(small.heads() == (version == Version::v4 ? 0 : 1));
  }
}

TEST_CASE("detect: a merged initial state, both names of time_faaaa, the unused value residual") {
  for (Version version : {Version::v5_0, Version::v5_1, Version::v5_2, Version::v6, Version::v7}) {
    CAPTURE(name_of(version));
    Config c = config_of(make_checkpoint({.version = version, .time_state = true}));
    CHECK(c.has_time_state);
    CHECK(c.version == version);
  }
  for (Version version : {Version::v5_0, Version::v5_1, Version::v5_2}) {
    CHECK(config_of(make_checkpoint({.version = version, .time_first = true})).version == version);
  }
  ModelShape shape;
  Config without = config_of(make_checkpoint(shape));
  shape.first_residual = true;
  CHECK(config_of(make_checkpoint(shape)) == without);
}

TEST_CASE("detect: vectors with dimensions of 1, or by heads") {
  CheckpointTensors v6 = make_checkpoint({.version = Version::v6});
  tensor_of(v6, "blocks.1.att.time_decay").sizes = {2, 8};
  tensor_of(v6, "blocks.0.att.time_maa_x").sizes = {16};
  CHECK(config_of(v6).version == Version::v6);
  CheckpointTensors v5 = make_checkpoint({.version = Version::v5_1});
  tensor_of(v5, "blocks.0.att.time_decay").sizes = {2, 1, 1};
  CHECK(config_of(v5).version == Version::v5_1);
}

TEST_CASE("detect: prefixes of trainers are taken off") {
  CheckpointTensors tensors = make_checkpoint({.version = Version::v6});
  Config c = config_of(tensors);
  for (const std::string prefix : {"_forward_module.", "module.", "model."}) {
    CAPTURE(prefix);
    CHECK(config_of(with_prefix(tensors, prefix)) == c);
  }
}

TEST_CASE("detect: every tensor that is missing is named") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    const CheckpointTensors whole = make_checkpoint({.version = version});
    for (const CheckpointTensor& t : whole) {
      CheckpointTensors tensors = whole;
      remove_tensor(tensors, t.name);
      std::string error = refusal(tensors);
      // Without what makes its version it is another version, of which something else is missing or too much.
      CHECK_MESSAGE(!error.empty(), t.name);
      CHECK_MESSAGE(!contains(error, "badly worded"), error);
      if (t.name.starts_with("blocks.1.att.r") || !contains(t.name, ".att.")) {
        CHECK_MESSAGE(contains(error, "'" + t.name + "' is missing"), error);
      }
    }
  }
}

TEST_CASE("detect: every tensor of other sizes is named, with both sizes") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    const CheckpointTensors whole = make_checkpoint({.version = version});
    for (const CheckpointTensor& t : whole) {
      CheckpointTensors tensors = whole;
      std::vector<int64_t> sizes = t.sizes;
      sizes.back()++;
      resize_tensor(tensors, t.name, sizes);
      CHECK_MESSAGE(!refusal(tensors).empty(), t.name);
      if (t.name.starts_with("blocks.1.ffn")) {
        CHECK_MESSAGE(contains(refusal(tensors), "tensor '" + t.name + "' is ["), refusal(tensors));
      }
      tensors = whole;
      resize_tensor(tensors, t.name, {});
      CHECK_MESSAGE(!refusal(tensors).empty(), t.name);
    }
  }
}

TEST_CASE("detect: every misspelt tensor is refused") {
  for (Version version : all_versions) {
    const CheckpointTensors whole = make_checkpoint({.version = version});
    for (const CheckpointTensor& t : whole) {
      CheckpointTensors tensors = whole;
      tensor_of(tensors, t.name).name += "_";
      CHECK_MESSAGE(!refusal(tensors).empty(), t.name);
    }
  }
}

TEST_CASE("detect: what does not belong is named") {
  CheckpointTensors tensors = make_checkpoint({});
  tensors.push_back(extra("blocks.1.att.surprise"));
  CHECK(contains(refusal(tensors),
                 "'blocks.1.att.surprise' does not belong to a model of RWKV-7: a variant that is not"));
  CheckpointTensors late = make_checkpoint({.layers = 3});
  for (const char* part : {"v0", "v1", "v2"}) {
    CheckpointTensors first = make_checkpoint({});
    first.push_back(extra(std::string("blocks.0.att.") + part));
    CHECK(refusal(first).empty());
    CHECK(contains(refusal(with_prefix(first, "wrapped.")), "missing"));
  }
}

TEST_CASE("detect: mixed versions are refused") {
  for (Version a : all_versions) {
    for (Version b : all_versions) {
      if (a == b) continue;
      CAPTURE(name_of(a));
      CAPTURE(name_of(b));
      CheckpointTensors mixed = make_checkpoint({.version = a});
      std::erase_if(mixed, [](const CheckpointTensor& t) { return t.name.starts_with("blocks.1."); });
      for (const CheckpointTensor& t : make_checkpoint({.version = b})) {
        if (t.name.starts_with("blocks.1.")) mixed.push_back(t);
      }
      CHECK(!refusal(mixed).empty());
    }
  }
}

TEST_CASE("detect: a layer missing in the middle is named") {
  CheckpointTensors tensors = make_checkpoint({.layers = 4});
  std::erase_if(tensors, [](const CheckpointTensor& t) { return t.name.starts_with("blocks.2."); });
  CHECK(contains(refusal(tensors), "tensor 'blocks.2.ln1.weight' is missing"));
  tensors = make_checkpoint({.layers = 2});
  std::erase_if(tensors, [](const CheckpointTensor& t) { return t.name.starts_with("blocks.0."); });
  CHECK(contains(refusal(tensors), "tensor 'blocks.0."));
}

TEST_CASE("detect: sizes that do not fit together") {
  CheckpointTensors heads = make_checkpoint({});
  resize_tensor(heads, "blocks.0.att.r_k", {3, 8});
  CHECK(contains(refusal(heads), "'blocks.0.att.r_k' has 3 heads, which do not divide the width 16"));
  CheckpointTensors head = make_checkpoint({});
  resize_tensor(head, "head.weight", {21, 16});
  CHECK(contains(refusal(head),
                 "'head.weight' is [21, 16], but a model of RWKV-7 with n_embd 16 needs [20, 16]"));
  CheckpointTensors width = make_checkpoint({});
  resize_tensor(width, "head.weight", {20, 15});
  CHECK(contains(refusal(width), "'head.weight' is [20, 15]"));
  CheckpointTensors empty = make_checkpoint({});
  resize_tensor(empty, "emb.weight", {0, 16});
  CHECK(!refusal(empty).empty());
}

TEST_CASE("detect: other kinds of files are named") {
  auto only = [](const std::string& name) { return refusal({extra(name)}); };
  CHECK(contains(only("blocks.0.att.receptance.lora_A"), "a LoRA adapter without its model"));
  CHECK(contains(only("blocks.0.att.receptance.lora_B.weight"), "a LoRA adapter without its model"));
  CHECK(contains(only("base_model.model.blocks.0.att.key.lora_A.default.weight"), "a LoRA adapter"));
  CHECK(contains(only("model.layers.0.attn.r_proj.weight"), "layout of Hugging Face or fla"));
  CHECK(contains(only("model.embeddings.weight"), "layout of Hugging Face or fla"));
  CHECK(contains(only("rwkv.blocks.0.attention.key.weight"), "layout of Hugging Face"));
  CHECK(contains(only("transformer.h.0.attn.c_attn.weight"), "not an RWKV model"));
  CHECK(contains(only("something"), "not a complete RWKV model of versions 4 to 7"));
  CheckpointTensors deep = make_checkpoint({});
  deep.push_back(extra("blocks.0.ffn.s_emb.weight"));
  CHECK(contains(refusal(deep), "DeepEmbed"));
  CheckpointTensors v4a = make_checkpoint({.version = Version::v4});
  v4a.push_back(extra("blocks.0.tiny_q.weight"));
  CHECK(contains(refusal(v4a), "RWKV-4a"));
}

TEST_CASE("detect: a state is no model, and a model is no state") {
  CHECK(contains(refusal(make_state_checkpoint(2, 2, 8)), "a state file, where a model is expected"));
  TemporaryDirectory directory;
  write_checkpoint(directory / "state.pth", make_state_checkpoint(2, 2, 8));
  write_checkpoint(directory / "model.pth", make_checkpoint({}));
  CHECK(is_state_checkpoint(Checkpoint::open(directory / "state.pth")));
  CHECK_FALSE(is_state_checkpoint(Checkpoint::open(directory / "model.pth")));
}

TEST_CASE("detect: control characters of a name do not reach the message") {
  CheckpointTensors tensors = make_checkpoint({});
  tensors.push_back(extra("blocks.0.\x1b[31mred\n"));
  CHECK(contains(refusal(tensors), "'blocks.0.\\x1b[31mred\\x0a'"));
}

}  // namespace rwkv::test

TEST_SUITE_END();
