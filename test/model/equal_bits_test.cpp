// What must not change a single bit: how tokens are cut into calls, the number of threads, and the way by
// which weights came into their form.
#include "model/executor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/half.h"
#include "cpu/features.h"
#include "model/checkpoint/convert.h"
#include "ops/quantize.h"
#include "test/model/checkpoint_model.h"
#include "test/model/reference_set.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("model");

namespace rwkv::test {
namespace {

const std::vector<std::string> precisions = {"fp32",   "bf16",   "fp16",   "fp32i8",
                                             "bf16i8", "fp16i8", "fp32i4", "bf16i4"};

/// Calls test(set, name) for every model.
template <class Test>
void for_each_model(Test test) {
  for (const ReferenceSet& set : reference_sets()) {
    for (const std::string& name : set.names) {
      CAPTURE(set.directory);
      CAPTURE(name);
      test(set, name);
    }
  }
}

void convert(const std::string& from, const std::string& to, const std::string& strategy, int threads = 1) {
  ConvertOptions options;
  options.strategy = strategy;
  options.threads = threads;
  convert_model(Checkpoint::open(from), to, options);
}

// Whether several tokens multiply as integers: Ops::matmul.
bool multiplies_integers() {
  const std::string set = cpu::choose_kernels().name;
  return set == "avxvnni" || set == "avx512vnni";
}

// Products of one token and of several may round otherwise.
bool one_token_differs(const std::string& precision) {
  std::string set = cpu::choose_kernels().name;
  const bool integers = precision.ends_with("i8") || precision.ends_with("i4");
  return integers || (precision == "bf16" && set != "scalar" && set != "avx2" && set != "avx512");
}

}  // namespace

TEST_CASE("equal bits: tokens one at a time, in chunks and in one call") {
  for (const std::string& precision : precisions) {
    CAPTURE(precision);
    for_each_model([&](const ReferenceSet& set, const std::string& name) {
      auto model = load_checkpoint(set.model(name), "cpu " + precision);
      State state(model);
      auto tokens = static_cast<int64_t>(set.tokens.size());
      std::vector<float> logits = run(model, set.tokens, tokens, state);
      for (int64_t chunk : {1, 2, 3, 7, 13, 19, 256}) {
        CAPTURE(chunk);
        if (one_token_differs(precision) && (chunk == 1 || tokens % chunk == 1)) continue;
        State other(model);
        CHECK(same_bits(run(model, set.tokens, chunk, other), logits));
        CHECK(same_bits(state, other));
      }
    });
  }
}

TEST_CASE("equal bits: a call that the executor cuts, for all logits and for the last") {
  for_each_model([&](const ReferenceSet& set, const std::string& name) {
    auto model = load_checkpoint(set.model(name), "cpu fp32");
    auto vocab = static_cast<size_t>(model->config().n_vocab);
    State state(model);
    std::vector<float> logits = run(model, set.tokens, 1, state), all(logits.size()), last(vocab);
    for (int64_t chunk : {1, 3, 7}) {
      CAPTURE(chunk);
      Executor executor(model, chunk);
      State a(model), b(model), c(model);
      CHECK(executor.forward(set.tokens, a, all) == static_cast<int64_t>(set.tokens.size()));
      CHECK(same_bits(all, logits));
      executor.forward(set.tokens, b, last);
      CHECK(same_bits(last, std::span(logits).last(vocab)));
      executor.forward(set.tokens, c, {});
      CHECK(same_bits(a, state));
      CHECK(same_bits(b, state));
      CHECK(same_bits(c, state));
    }
  });
}

TEST_CASE("equal bits: any number of threads") {
  for (const std::string precision : {"fp32", "bf16", "fp16i8"}) {
    CAPTURE(precision);
    for_each_model([&](const ReferenceSet& set, const std::string& name) {
      std::string strategy = "cpu " + precision;
      std::vector<float> logits = run(load_checkpoint(set.model(name), strategy, 1), set.tokens, 7);
      CHECK(same_bits(run(load_checkpoint(set.model(name), strategy, 2), set.tokens, 7), logits));
      CHECK(same_bits(run(load_checkpoint(set.model(name), strategy, 3), set.tokens, 7), logits));
    });
  }
}

TEST_CASE("equal bits: a converted file, a conversion in memory, and weights repacked from fp32") {
  TemporaryDirectory directory;
  std::string fp32 = directory / "fp32", file = directory / "file", again = directory / "again";
  for_each_model([&](const ReferenceSet& set, const std::string& name) {
    convert(set.model(name), fp32, "cpu fp32");
    std::vector<std::string> strategies = {"cpu fp32i8 *2 -> cpu bf16"};
    for (const std::string& precision : precisions) strategies.push_back("cpu " + precision);
    for (const std::string& strategy : strategies) {
      CAPTURE(strategy);
      std::vector<float> logits = run(load_checkpoint(set.model(name), strategy), set.tokens, 7);
      convert(set.model(name), file, strategy, 1);
      convert(set.model(name), again, strategy, 3);
      CHECK(read_file(file) == read_file(again));
      auto as_it_is = load_file(file);
      CHECK(as_it_is->converted_bytes() == 0);
      CHECK(same_bits(run(as_it_is, set.tokens, 7), logits));
      auto repacked = load_file(fp32, strategy, 3);
      CHECK((repacked->converted_bytes() == 0) == (strategy == "cpu fp32"));
      CHECK(repacked->weight_bytes_per_token() == as_it_is->weight_bytes_per_token());
      CHECK(same_bits(run(repacked, set.tokens, 7), logits));
    }
  });
}

namespace {

/// The same numbers with matrices and vectors in another type than fp32, and all in fp32. The embedding is
/// fp32 in both, since its type decides how it is rounded.
std::pair<CheckpointTensors, CheckpointTensors> narrow_and_wide(Version version, DType type) {
  CheckpointTensors narrow =
      make_checkpoint({.version = version, .embd = 48, .ffn = 160, .vocab = 70, .head = 16, .dtype = type});
  tensor_of(narrow, "emb.weight").dtype = DType::f32;
  CheckpointTensors wide = narrow;
  for (CheckpointTensor& t : wide) {
    for (float& v : t.values) {
      if (t.dtype == DType::f16) v = to_float(to_half(v));
      if (t.dtype == DType::bf16) v = to_float(to_bfloat16(v));
    }
    t.dtype = DType::f32;
  }
  return {narrow, wide};
}

}  // namespace

TEST_CASE("equal bits: fp32 from a checkpoint in 16 bits, whose matrices stay so") {
  TemporaryDirectory directory;
  const std::string source = directory / "m.pth", narrow_path = directory / "narrow",
                    wide_path = directory / "wide";
  const std::vector<int32_t> tokens = {3, 69, 0, 5, 5, 17, 4, 8, 60, 33, 2, 1, 9, 68};
  for (Version version : all_versions) {
    for (DType type : {DType::bf16, DType::f16}) {
      const auto [narrow, wide] = narrow_and_wide(version, type);
      for (const char* strategy : {"cpu fp32", "cpu fp32i8", "cpu fp32 *1 -> cpu fp32i4"}) {
        CAPTURE(name_of(version));
        CAPTURE(name_of(type));
        CAPTURE(strategy);
        write_checkpoint(source, narrow);
        convert(source, narrow_path, strategy);
        write_checkpoint(source, wide);
        convert(source, wide_path, strategy);
        auto in_16_bits = load_file(narrow_path), in_fp32 = load_file(wide_path);
        CHECK(in_16_bits->converted_bytes() == 0);
        CHECK(in_16_bits->config().weights == type);
        CHECK(in_16_bits->weight_bytes_per_token() <= in_fp32->weight_bytes_per_token());
        for (int64_t chunk : {1, 5, 14})
          CHECK(same_bits(run(in_16_bits, tokens, chunk), run(in_fp32, tokens, chunk)));
      }
    }
  }
}

TEST_CASE("equal bits: a file in 16 bits is multiplied in fp32 as it lies there") {
  TemporaryDirectory directory;
  const std::string source = directory / "m.pth", path = directory / "m";
  constexpr int64_t vocabulary = 70, width = 48;
  for (DType type : {DType::f32, DType::bf16}) {  // of the checkpoint: the file's is what counts
    CAPTURE(name_of(type));
    write_checkpoint(source, make_checkpoint({.embd = width, .vocab = vocabulary, .dtype = type}));
    for (const char* strategy : {"cpu bf16", "cpu fp16"}) {
      CAPTURE(strategy);
      convert(source, path, strategy);
      auto model = load_file(path, "cpu fp32");
      const Tensor& head = model->weights().head.head;
      CHECK(head.exact);
      CHECK(head.data == model->file().bytes_of("head.weight").data());
      CHECK(model->converted_bytes() == vocabulary * width * 4);  // the embedding
    }
  }
}

namespace {

/// Wide enough that the CPU's matrices of bf16 are coded.
ModelShape wide_shape(Version version, DType type) {
  return {.version = version, .layers = 2, .embd = 256, .ffn = 320, .vocab = 50, .head = 64, .dtype = type};
}

/// As the other checkpoint, but with numbers that no table of sixteen has.
CheckpointTensors uncodable(CheckpointTensors tensors) {
  for (CheckpointTensor& t : tensors) {
    if (t.sizes.size() != 2 || !t.name.ends_with("weight") || t.name == "emb.weight") continue;
    for (size_t i = 0; i < t.values.size(); i++) t.values[i] = std::ldexp(1.0f, -static_cast<int>(i % 61));
  }
  return tensors;
}

Layout layout_in(const std::string& path, const std::string& name) {
  const ModelFile file = ModelFile::open(path);
  auto found = std::ranges::find(file.tensors, name, &ModelTensor::name);
  REQUIRE(found != file.tensors.end());
  return found->form.layout;
}

}  // namespace

TEST_CASE("equal bits: coded matrices, and the same numbers as fp32") {
  TemporaryDirectory directory;
  const std::string source = directory / "source", narrow = directory / "narrow", wide = directory / "wide";
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    write_checkpoint(source, make_checkpoint(wide_shape(version, DType::bf16)));
    convert(source, narrow, "cpu fp32", 3);
    CheckpointTensors tensors = make_checkpoint(wide_shape(version, DType::bf16));
    for (CheckpointTensor& t : tensors) {
      if (t.dtype == DType::bf16)
        for (float& v : t.values) v = to_float(to_bfloat16(v));
      if (t.sizes.size() == 2 && t.name != "emb.weight") t.dtype = DType::f32;
    }
    write_checkpoint(source, tensors);
    convert(source, wide, "cpu fp32");
    CHECK(layout_in(narrow, "head.weight") == Layout::cpu_coded);
    CHECK(layout_in(narrow, "blocks.1.ffn.key.weight") == Layout::cpu_coded);
    CHECK(layout_in(narrow, "blocks.1.ffn.value.weight") == Layout::input_rows);
    CHECK(layout_in(wide, "head.weight") == Layout::cpu_blocks);
    auto a = load_file(narrow, "", 2), b = load_file(wide);
    CHECK(a->converted_bytes() == 0);
    const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};
    for (int64_t chunk : {1, 8}) CHECK(same_bits(run(a, tokens, chunk), run(b, tokens, chunk)));
  }
}

TEST_CASE("equal bits: from coded matrices to other strategies, as from the checkpoint") {
  TemporaryDirectory directory;
  const std::string source = directory / "source", file = directory / "file";
  write_checkpoint(source, make_checkpoint(wide_shape(Version::v7, DType::bf16)));
  convert(source, file, "cpu bf16");
  const std::vector<int32_t> tokens = {3, 1, 4, 1, 5};
  for (const std::string& precision : precisions) {
    CAPTURE(precision);
    auto a = load_file(file, "cpu " + precision), b = load_checkpoint(source, "cpu " + precision);
    // The embedding is in bf16 in the file.
    const double bound = precision.starts_with("bf16") ? 0 : 1e-2;
    for (int64_t chunk : {1, 5}) CHECK(relative_error(run(a, tokens, chunk), run(b, tokens, chunk)) <= bound);
  }
}

TEST_CASE("matrices that cannot be coded stay as they are, each on its own") {
  TemporaryDirectory directory;
  const std::string source = directory / "source", file = directory / "file";
  CheckpointTensors tensors = make_checkpoint(wide_shape(Version::v6, DType::bf16));
  const CheckpointTensor other = tensor_of(tensors, "blocks.0.att.key.weight");
  tensors = uncodable(std::move(tensors));
  tensor_of(tensors, other.name) = other;
  write_checkpoint(source, tensors);
  convert(source, file, "cpu bf16");
  CHECK(layout_in(file, "blocks.0.att.key.weight") == Layout::cpu_coded);
  CHECK(layout_in(file, "blocks.1.att.key.weight") == Layout::cpu_blocks);
  CHECK(layout_in(file, "head.weight") == Layout::cpu_blocks);
  const std::vector<int32_t> tokens = {3, 1, 4};
  CHECK(same_bits(run(load_file(file), tokens), run(load_checkpoint(source, "cpu bf16"), tokens)));
}

namespace {

/// As drawn in ops/layout.h, in cpu_blocks.
float quantized_weight(const Tensor& packed, int64_t row, int64_t input) {
  const bool int4 = packed.dtype == DType::i4;
  int64_t steps = (packed.cols() + 63) / 64, inside = input % 64, quad = int4 ? inside / 8 : inside / 4;
  const std::byte* step = packed.data + (row / 16 * steps + input / 64) * (64 + (int4 ? 512 : 1024));
  auto scale = reinterpret_cast<const uint16_t*>(step)[inside / 32 * 16 + row % 16];
  auto byte = static_cast<uint8_t>(step[64 + (quad * 16 + row % 16) * 4 + inside % 4]);
  const int8_t q =
      int4 ? int4_levels[inside / 4 % 2 == 0 ? byte & 15 : byte >> 4] : static_cast<int8_t>(byte);
  return static_cast<float>(q) * to_float(BFloat16{scale});
}

}  // namespace

// What quantization lost stays lost: the weights are q * scale, and the file that they go to says so.
TEST_CASE("equal bits: int8 and int4 weights loaded as fp32 are the products of value and scale") {
  TemporaryDirectory directory;
  std::string path = directory / "quantized";
  for_each_model([&](const ReferenceSet& set, const std::string& name) {
    for (const char* strategy : {"cpu fp32i8", "cpu fp32i4"}) {
      CAPTURE(strategy);
      convert(set.model(name), path, strategy);
      auto quantized = load_file(path), fp32 = load_file(path, "cpu fp32");
      // In a chunk products with small matrices round nothing, unless they multiply integers: then it is
      // little beside what quantization loses.
      auto chunk = static_cast<int64_t>(set.tokens.size());
      const std::vector<float> logits = run(quantized, set.tokens, chunk);
      const double lost = relative_error(logits, set.expected(name, "fp32"));
      CHECK(relative_error(run(fp32, set.tokens, chunk), logits) <=
            (multiplies_integers() ? 0.05 * lost : 1e-5));
      const Tensor &packed = quantized->weights().head.head, &plain = fp32->weights().head.head;
      int64_t wrong = 0;
      for (int64_t row = 0; row < packed.rows(); row++) {
        for (int64_t input = 0; input < packed.cols(); input++) {
          float found = plain.f32()[row / 16 * 16 * packed.cols() + input * 16 + row % 16];
          wrong += found == quantized_weight(packed, row, input) ? 0 : 1;
        }
      }
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("equal bits: big matrices in huge pages instead of the file") {
  TemporaryDirectory directory;
  std::string checkpoint = directory / "model.pth", path = directory / "model";
  write_checkpoint(checkpoint, make_checkpoint({.embd = 32, .vocab = 40'000}));
  convert(checkpoint, path, "cpu bf16");
  const std::vector<int32_t> tokens = {3, 39'999, 4};
  auto mapped = load_file(path);
  uint64_t last = 0;
  LoadOptions options;
  options.huge_pages = true;
  options.progress = [&](const std::string&, uint64_t done, uint64_t) { last = done; };
  auto copied = Model::load(ModelFile::open(path), options);
  auto in_file = [](const Model& model, const Tensor& t) {
    std::span<const std::byte> bytes = model.file().file.bytes();
    return t.data >= bytes.data() && t.data < bytes.data() + bytes.size();
  };
  CHECK(in_file(*mapped, mapped->weights().head.head));
  CHECK(!in_file(*copied, copied->weights().head.head));
  CHECK(in_file(*copied, copied->weights().embedding.table));
  CHECK(in_file(*copied, copied->weights().head.ln_out.weight));
  CHECK(last > 40'000 * 32 * 2);
  CHECK(copied->converted_bytes() == 0);
  CHECK(same_bits(run(copied, tokens, 2), run(mapped, tokens, 2)));
}

TEST_CASE("equal bits: progress of repacking ends where everything is done") {
  TemporaryDirectory directory;
  std::string path = directory / "fp32";
  convert(data_path("reference/models/v6.pth"), path, "cpu fp32");
  uint64_t last = 0, end = 0;
  LoadOptions load;
  load.strategy = "cpu bf16i8";
  load.progress = [&](const std::string& what, uint64_t done, uint64_t total) {
    CHECK(what == "converting weights");
    CHECK(done > last);
    CHECK(done <= total);
    last = done;
    end = total;
  };
  Model::load(ModelFile::open(path), load);
  CHECK(last == end);
  CHECK(end > 0);
}

}  // namespace rwkv::test

TEST_SUITE_END();
