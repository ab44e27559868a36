// rwkv-convert: what it tells of files and memory, and states in and out.
#include <doctest/doctest.h>

#include <filesystem>

#include "apps/common/progress.h"
#include "model/checkpoint/state_checkpoint.h"
#include "model/model_file.h"
#include "test/apps/chat.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

Result convert(const Arguments& arguments) {
  Arguments command = {program_path("tools/rwkv-convert")};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_program(command);
}

/// What is printed, of a run that must succeed, with runs of blanks as one.
std::string printed(const Arguments& arguments) {
  Result r = convert(arguments);
  CHECK(r.status == 0);
  CHECK(r.errors == "");
  std::string text;
  for (char c : r.output) {
    if (c != ' ' || !text.ends_with(' ')) text += c;
  }
  return text;
}

void check_parts(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    CHECK_MESSAGE(contains(text, part), std::string(part) << " is not in " << text);
}

/// The host's total and weights of a strategy, such as "18.8 MB 10.3 MB"; the table of usual strategies has
/// the same total. It depends on the machine's threads and instruction set.
std::string memory_of(const std::string& file, const std::string& strategy) {
  const std::string text = printed({"--info", file, "--memory", strategy});
  const size_t begin = text.find("\nhost ") + 6, unit = text.find(' ', begin) + 1;
  const size_t total_end = text.find(' ', unit), weights_unit = text.find(' ', total_end + 1) + 1;
  check_parts(printed({"--info", file}),
              {("\n" + strategy + " " + text.substr(begin, total_end - begin) + " ").c_str()});
  return text.substr(begin, text.find(' ', weights_unit) - begin);
}

/// A saved conversation with the demo model.
std::string save_conversation(const std::string& path) {
  Demo demo;
  save_session(path, demo.session("User: a\n\nAssistant: b\n\n"));
  return path;
}

}  // namespace

TEST_CASE("rwkv-convert --info: a checkpoint, its tensors, and what strategies need") {
  std::string text = printed({"--info", demo_path("guide-2.5m.pth")});
  check_parts(text, {"kind checkpoint (.pth)", "model RWKV-7, 6 layers, n_embd 160", "low rank decay ",
                     "vocabulary 1500 tokens", "checksums of every tensor",
                     "tensor type shape bytes min max mean rms", "\nemb.weight bf16 [1500, 160] 480000 ",
                     "\nblocks.5.ffn.value.weight bf16 [160, ", "\nstrategy host cuda:0\ncpu fp32 ",
                     "\ncpu bf16i4 ", "\ncuda fp16i4 "});
  std::string brief = printed({"--info", demo_path("guide-2.5m.pth"), "--no-statistics"});
  check_parts(brief, {"tensor type shape bytes\n", "\nemb.weight bf16 [1500, 160] 480000\n"});
}

TEST_CASE("rwkv-convert --info: a converted file, with where it comes from and what is no number in it") {
  std::string text = printed({"--info", demo_file()});
  check_parts(text, {"kind converted model", "strategy cpu fp32", "1500 tokens, World's kind in the file",
                     "source guide-2.5m.pth", "sha256 ", "made by rwkv-convert",
                     "checksums of 200 of 200 tensors; --verify", "\nvocabulary uint8 ",
                     "\nhead.weight bf16 [1500, 160] 481280 "});
  TemporaryDirectory directory;
  // In fp32 integers take 4 bytes, where the checkpoint's bf16 stays bf16.
  CHECK(convert({demo_path("guide-2.5m.pth"), directory / "i8", "--strategy", "cpu bf16i8"}).status == 0);
  check_parts(memory_of(demo_file(), "cpu fp32"), {" MB 5.67 MB"});
  check_parts(memory_of(directory / "i8", "cpu fp32"), {" MB 9.84 MB"});
  CheckpointTensors tensors = make_checkpoint({.vocab = 20});
  tensor_of(tensors, "blocks.1.ffn.key.weight").values[3] = std::numeric_limits<float>::quiet_NaN();
  tensor_of(tensors, "blocks.1.ffn.key.weight").values[9] = -std::numeric_limits<float>::infinity();
  write_checkpoint(directory / "m.pth", tensors);
  check_parts(printed({"--info", directory / "m.pth", "--threads", "2"}), {" 1 NaN 1 infinite\n"});
}

TEST_CASE("rwkv-convert --info: of a file whose matrices are coded, what they take") {
  TemporaryDirectory directory;
  const std::string source = directory / "m.pth", file = directory / "m";
  write_checkpoint(
      source, make_checkpoint({.embd = 512, .ffn = 512, .vocab = 1000, .head = 64, .dtype = DType::bf16}));
  CHECK(convert({source, file}).status == 0);
  uint64_t bytes = 0, plain = 0;
  const ModelFile model = ModelFile::open(file);
  for (const ModelTensor& t : model.tensors) bytes += static_cast<uint64_t>(t.form.bytes());
  for (const ModelTensor& t : model_tensors(model.config, model.plan))
    plain += static_cast<uint64_t>(t.form.bytes());
  CHECK(bytes < plain);
  for (const std::string strategy : {"cpu bf16", "cpu fp32"}) {
    // The embedding alone is of another type in fp32.
    const uint64_t table = strategy == "cpu fp32" ? 1000 * 512 * 2 : 0;
    CHECK(contains(memory_of(file, strategy), " " + apps::human_bytes(bytes + table)));
    CHECK(contains(memory_of(source, strategy), " " + apps::human_bytes(plain + table)));
  }
}

TEST_CASE("rwkv-convert --info: a .pth that is no model is told apart, and its tensors are listed") {
  check_parts(printed({"--info", data_path("checkpoint/shapes.pth")}),
              {"kind checkpoint (.pth)", "model not taken: ", "tensor type shape bytes"});
  CHECK(is_error(convert({"--info", data_path("checkpoint/module.pth")}), 1));
  TemporaryDirectory directory;
  auto endless = pickled_tensor({.sizes = {int64_t{1} << 40}, .strides = {0}});
  for (const std::string& root : {pickled_dict({{"x", endless}}), pickled_list({endless})}) {
    make_zip(checkpoint_records(pickle_of(root), {floats(6)})).write(directory / "endless.pth");
    CHECK(contains(convert({"--info", directory / "endless.pth"}).errors, "claim far more"));
  }
  CHECK(is_error(convert({"--info", data_path("checkpoint/expected.txt")}), 1));
  CHECK(is_error(convert({"--info", "/no such file"}), 1));
}

TEST_CASE("rwkv-convert --info: states of every kind") {
  TemporaryDirectory directory;
  std::string trained = data_path("reference/states/v7.pth"), state = directory / "trained.state";
  check_parts(printed({"--info", trained}),
              {"kind trained initial state (.pth)", "3 layers, 1 heads of size 64",
               "orientation [head, value, key]"});
  CHECK(convert({trained, state}).status == 0);
  check_parts(printed({"--info", state}), {"kind trained initial state\n", "orientation [head, key, value]",
                                           "of v7.pth", "\nblocks.2.att.time_state fp32 [1, 64, 64] 16384 "});
  check_parts(
      printed({"--info", data_path("reference/lists/v4.pth")}),
      {"kind a list of tensors (.pth), as the Python package's states are", "RWKV-4, 3 layers, n_embd 40"});
  check_parts(printed({"--info", data_path("reference/lists/v6-merged.pth")}),
              {"RWKV-5, 6 or 7, 3 layers, n_embd 24, 3 heads of size 8"});
  std::string saved = save_conversation(directory / "saved.state");
  check_parts(printed({"--info", saved}), {"kind saved conversation", "model RWKV-7, 6 layers",
                                           "with the logits", "of guide-2.5m.pth", "\ntokens int32 ["});
  CHECK(is_error(convert({"--info", saved, "--memory", "cpu fp32"}), 2));
  CHECK(is_error(convert({"--info", trained, "--memory", "cpu fp32"}), 2));
}

TEST_CASE("rwkv-convert --memory: what a strategy takes of a device that is not here, and what would fit") {
  for (const std::string& model : {demo_file(), demo_path("guide-2.5m.pth")}) {
    std::string fits = printed({"--info", model, "--memory", "cuda fp16i8 *3+", "--device-memory", "1GB"});
    check_parts(fits, {"memory that 'cuda fp16i8 *3+' takes",
                       "device total weights streamed slots state activations free", "\nhost ", "\ncuda:0 ",
                       " 1.00 GB\n", "It fits.\n"});
    CHECK(!contains(fits, "\ntensor"));
    const auto refused = [&](const char* memory) {
      const Result result = convert({"--info", model, "--memory", "cuda fp16", "--device-memory", memory});
      CHECK(is_error(result, 1));
      CHECK(contains(result.output, "\ncuda:0 "));
      CHECK(!contains(result.output, "It fits."));
      return result.errors;
    };
    check_parts(refused("11500kB"),
                {"strategy 'cuda fp16': cuda:0 has 11.5 MB free, but ", "fits with: 'cuda fp16 *",
                 "+' (layers streamed), or 'cuda fp16 *", " -> cpu fp16' (layers on the CPU)\n"});
    check_parts(refused("1.5kB"), {"nothing fits: use a cpu strategy"});
    check_parts(
        printed({"--info", model, "--memory", "cuda fp16", "--device-memory", "12.7MB"}),
        {"It fits.\nIt leaves ", " of cuda:0 free; auto and proposals leave 794 kB to the driver.\n"});
    check_parts(
        printed({"--info", model, "--memory", "cuda:63 fp16 *2 -> cpu fp32"}),
        {"\ncuda:63 ", " unknown\n", "This program sees no cuda:63: --device-memory 8GB plans for one"});
    check_parts(printed({"--info", model, "--memory", "cuda:63 fp16", "--device-memory", "1GiB"}),
                {"1.07 GB\n"});
    check_parts(printed({"--info", model, "--memory", "cuda fp16", "--device-memory", "3g"}), {"3.00 GB\n"});
    CHECK(is_error(convert({"--info", model, "--memory", "gpu fp16"}), 1));
  }
  check_parts(printed({"--info", demo_file(), "--memory", "cpu fp32"}),
              {"The host's weights are used in the file", "It fits.\n"});
  check_parts(printed({"--info", demo_file(), "--memory", "cpu bf16"}),
              {"Of the host's weights ", "are converted at"});
  check_parts(
      printed({"--info", demo_path("guide-2.5m.pth"), "--memory", "cuda fp16", "--device-memory", "1GB"}),
      {"\nhost 5.19 MB 5.19 MB - ",
       "A .pth is converted into host memory at each start and stays there, all 5.19 MB of weights, "});
}

TEST_CASE("rwkv-convert --memory: in a file that takes both, the error stands behind the table") {
  const std::string command = "'" + program_path("tools/rwkv-convert") + "' --info '" + demo_file() +
                              "' --memory 'cuda fp16' --device-memory 1MB 2>&1";
  const Result both = run_program({"/bin/sh", "-c", command});
  CHECK(both.status == 1);
  CHECK(both.output.find("\ncuda:0 ") < both.output.find("error: strategy 'cuda fp16'"));
  CHECK(both.output.ends_with(" cpu strategy\n"));
}

TEST_CASE("rwkv-convert --memory auto: what auto would choose for a device of that size") {
  const auto chosen = [](const std::string& model, const char* memory) {
    return printed({"--info", model, "--memory", "auto", "--device-memory", memory});
  };
  for (const std::string& model : {demo_file(), demo_path("guide-2.5m.pth")}) {
    check_parts(chosen(model, "1.5GB"),
                {"memory that 'cuda ", "i8' takes (what auto would choose), with prompts", "\ncuda:0 ",
                 " 1.50 GB\n", "It fits.\n"});
    check_parts(chosen(model, "8MB"), {"memory that 'cuda ", "\ncuda:0 ", " 8.00 MB\n", "It fits.\n"});
    check_parts(chosen(model, "1kB"),
                {"memory that 'cpu ", "' takes (what auto would choose)", "It fits.\n"});
    CHECK(!contains(chosen(model, "1kB"), "\ncuda:0 "));
  }
  check_parts(printed({"--info", demo_file(), "--memory", "auto"}),
              {"(what auto would choose)", "It fits.\n"});
}

TEST_CASE("rwkv-convert --verify: a checkpoint is told where its checksums are compared") {
  const Result result = convert({"--verify", demo_path("guide-2.5m.pth")});
  CHECK(is_error(result, 1));
  CHECK(contains(result.errors, "a PyTorch file, not a converted one: --info and converting"));
}

TEST_CASE("rwkv-convert: options that do not go together are status 2") {
  for (const Arguments& wrong : std::initializer_list<Arguments>{
           {"--info", "x", "y"},
           {"--info", "x", "--verify", "y"},
           {"--info", "x", "--strategy", "cpu fp32"},
           {"--info", "x", "--model", "y"},
           {"--info", ""},
           {"--memory", "cpu fp32"},
           {"--no-statistics"},
           {"--info", "x", "--device-memory", "8GB"},
           {"--info", "x", "--memory", "s", "--device-memory", "8XB"},
           {"--info", "x", "--memory", "s", "--device-memory", "8"},
           {"--info", "x", "--memory", "s", "--device-memory", "-1GB"},
           {"--info", "x", "--memory", "s", "--device-memory", "1e30GB"},
           {"--export", demo_file(), "o"},
           {"--export", data_path("reference/states/v7.pth"), "o"},
           {"--export", "--verify", "x"},
           {"--verify", "x", "--model", "y"},
           {demo_path("guide-2.5m.pth"), "o", "--model", "m"},
           {demo_path("guide-2.5m.pth"), "o", "--strategy", "auto"},
           {data_path("reference/states/v7.pth"), "o", "--model", "m"},
           {data_path("reference/lists/v4.pth"), "o"},
           {data_path("reference/lists/v4.pth"), "o", "--strategy", "cpu fp32"}}) {
    CAPTURE(wrong.back());
    CHECK(is_error(convert(wrong), 2));
    CHECK(!std::filesystem::exists("o"));
  }
}

TEST_CASE("rwkv-convert: a conversation goes out as a .pth and comes back, and chat goes on with it") {
  TemporaryDirectory directory;
  std::string saved = save_conversation(directory / "saved.state"), pth = directory / "list.pth",
              back = directory / "back.state";
  check_parts(printed({saved, pth}), {"state 6 layers", "for RWKV-7 (guide-2.5m.pth)",
                                      "as the list of tensors that", "left out ", "written "});
  check_parts(printed({"--export", saved, directory / "same.pth"}), {"as the list of tensors that"});
  CHECK(read_file(directory / "same.pth") == read_file(pth));
  check_parts(printed({pth, back, "--model", demo_file()}),
              {"for RWKV-7 (guide-2.5m.pth)", "transposed (RWKV-7)", "tokens none"});
  StateFile before = read_state_file(MappedFile::open(saved)),
            after = read_state_file(MappedFile::open(back));
  REQUIRE(before.layers.size() == after.layers.size());
  for (size_t i = 0; i < before.layers.size(); i++) {
    CHECK(before.layers[i].att == after.layers[i].att);
    CHECK(before.layers[i].att_shift == after.layers[i].att_shift);
    CHECK(before.layers[i].ffn_shift == after.layers[i].ffn_shift);
  }
  std::string expected = run_program(chat_command({"--load", saved, "--prompt", "what is 3 + 4?"})).output;
  CHECK(!expected.empty());
  for (const std::string& state : {back, pth}) {
    CHECK(run_program(chat_command({"--load", state, "--prompt", "what is 3 + 4?"})).output == expected);
  }
  CHECK(run_program(chat_command({"--load", back}), "/regenerate\n")
            .errors.starts_with("error: there is no reply"));
  CHECK(is_error(convert({saved, saved}), 1));
  CHECK(is_error(convert({saved, pth, "--strategy", "cpu fp32"}), 2));
  CHECK(is_error(convert({saved, pth, "--model", demo_file()}), 2));
  CHECK(is_error(convert({demo_file(), pth}), 1));
  Result other = convert({data_path("reference/lists/v4.pth"), back, "--model", demo_file()});
  CHECK(is_error(other, 1));
  CHECK(contains(other.errors, "a list of 15 tensors, but the state of RWKV-7 with 6 layers has 18"));
}

TEST_CASE("rwkv-convert --verify: states, too, and what is wrong with them") {
  TemporaryDirectory directory;
  std::string saved = save_conversation(directory / "saved.state"), cut = directory / "cut";
  check_parts(printed({"--verify", saved}), {"state of 20 tensors", "structure and checksums are right"});
  const std::string bytes = read_file(saved);
  for (size_t size : {size_t{0}, size_t{5}, size_t{4000}, bytes.size() - 1}) {
    write_file(cut, std::string_view(bytes).substr(0, size));
    CHECK(is_error(convert({"--verify", cut}), 1));
    CHECK(is_error(convert({cut, directory / "o"}), 1));
    CHECK(is_error(convert({"--info", cut}), 1));
  }
  std::string flipped = bytes;
  flipped[bytes.size() - 5000] = static_cast<char>(bytes[bytes.size() - 5000] ^ 1);
  write_file(cut, flipped);
  CHECK(contains(convert({"--verify", cut}).errors, "is damaged"));
  StateFile state = read_state_file(MappedFile::open(saved));
  state.layers[2].att[5] = std::numeric_limits<float>::quiet_NaN();
  write_state_file(cut, state);
  CHECK(contains(convert({"--verify", cut}).errors,
                 "tensor 'blocks.2.att.time_state' holds NaN or infinite values: the state is useless"));
  state = read_state_file(MappedFile::open(saved));
  state.config->n_layer = 7;
  write_state_file(cut, state);
  CHECK(contains(convert({"--verify", cut}).errors, "tensor 'blocks.6.att.time_state' is missing: damaged"));
  CHECK(contains(convert({cut, directory / "o"}).errors, "is missing"));
  CHECK(!std::filesystem::exists(directory / "o"));
}

}  // namespace rwkv::test

TEST_SUITE_END();
