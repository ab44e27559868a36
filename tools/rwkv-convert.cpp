// Makes model files and state files from checkpoints and the reverse of states, checks them, and tells what
// they are.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>

#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "core/error.h"
#include "core/output_file.h"
#include "model/checkpoint/convert.h"
#include "model/checkpoint/pth.h"
#include "model/checkpoint/state_checkpoint.h"
#include "model/state.h"
#include "tools/info.h"

namespace rwkv::apps {
namespace {

struct Options {
  std::string input, output, strategy, vocabulary, model, verify;
  InfoOptions info;
  std::optional<double> device_memory;
  int threads = 0;
  bool no_crc = false, no_statistics = false, to_export = false;
};

// "layers 0-23 and the head as cpu bf16", one part for each run of equal plans.
std::string precision_text(const Strategy& strategy, const std::vector<LayerPlan>& plan) {
  std::string text;
  size_t head = plan.size() - 1;
  for (size_t begin = 0; begin < plan.size();) {
    size_t end = begin;
    while (end < plan.size() && plan[end] == plan[begin]) end++;
    std::string layers = begin == head ? "head"
                         : end > head  ? fmt::format("layers {}-{} and head", begin, head - 1)
                                       : fmt::format("layers {}-{}", begin, end - 1);
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", layers,
                        precision_name(plan[begin].type, plan[begin].quantization));
    begin = end;
  }
  return fmt::format("{} ({})", to_string(strategy), text);
}

std::string vocabulary_text(const MappedFile& vocabulary, int64_t n_vocab) {
  if (vocabulary.bytes().empty()) return fmt::format("{} tokens, none in the file", n_vocab);
  bool bpe = make_tokenizer(vocabulary.bytes(), vocabulary.path())->kind() == TokenizerKind::bpe20b;
  return fmt::format("{} tokens, {} ({})", n_vocab, bpe ? "20B" : "World", vocabulary.path());
}

void print_report(const ConvertReport& r, const Options& options, const MappedFile& vocabulary) {
  const Config& c = r.config;
  for (const std::string& warning : r.warnings) write_quietly(fmt::format("warning: {}\n", warning));
  print_row("model", model_text(c));
  print_row("strategy", precision_text(r.strategy, r.plan));
  print_row("vocabulary", vocabulary_text(vocabulary, c.n_vocab));
  if (c.has_time_state) print_row("state", "a trained initial state is part of the model");
  print_row("size", fmt::format("{} -> {}", human_bytes(r.bytes_read), human_bytes(r.bytes_written)));
  print_row("time", fmt::format("{:.2f} s, {:.0f} MB/s", r.seconds,
                                static_cast<double>(r.bytes_read) / 1e6 / r.seconds));
  print_row("written", options.output);
}

void warn_without_vocabulary(const MappedFile& vocabulary, int64_t n_vocab) {
  if (!vocabulary.bytes().empty()) return;
  const char* known = n_vocab == 65536
                          ? " (World's, rwkv_vocab_v20230424.txt, was not found beside the programs)"
                      : n_vocab == 50277 ? " (20B_tokenizer.json was not found beside the programs)"
                                         : " (neither World's 65536 nor 20B's 50277)";
  write_quietly(fmt::format(
      "warning: no vocabulary for {} tokens{}; programs that read or write text will need --vocab\n", n_vocab,
      known));
}

void convert_checkpoint(const Checkpoint& checkpoint, const Options& options) {
  if (options.strategy == "auto") {
    throw UsageError(
        "a file is laid out for one strategy, so --strategy cannot be auto: name one, such as the one that "
        "--info MODEL --memory auto tells, or leave it out");
  }
  ProgressLine progress;
  ConvertOptions convert;
  convert.strategy = options.strategy;
  convert.threads = options.threads;
  int64_t n_vocab = ModelCheckpoint(checkpoint).config().n_vocab;
  convert.vocabulary = find_vocabulary(options.vocabulary, n_vocab);
  warn_without_vocabulary(convert.vocabulary, n_vocab);
  convert.progress = [&](uint64_t done, uint64_t total) { progress.show("converting", done, total); };
  ConvertReport report = convert_model(checkpoint, options.output, convert);
  progress.clear();
  print_report(report, options, convert.vocabulary);
}

// --- States ---

void refuse_model_options(const Options& options) {
  if (options.strategy.empty() && options.vocabulary.empty()) return;
  throw UsageError(fmt::format("{} is a state, which has no strategy and no vocabulary", options.input));
}

void print_state(const StateFile& state) {
  print_row("state", state_text(state));
  if (state.config)
    print_row("for", fmt::format("RWKV-{} ({})", name_of(state.config->version), state.source));
}

void convert_trained_state(const Checkpoint& checkpoint, const Options& options) {
  if (!options.model.empty()) {
    throw UsageError(
        fmt::format("{} is a trained state, which fits any model of its shape: --model is for "
                    "the Python package's states",
                    options.input));
  }
  print_state(convert_state(checkpoint, options.output));
  int named = version_in_name(std::filesystem::path(options.input).filename().string());
  print_row("for", named == 0 ? "RWKV-5, 6 or 7 of this shape" : fmt::format("RWKV-{} by its name", named));
  print_row("orientation", named == 7 ? "as it is in the file (RWKV-7)"
                           : named >= 5
                               ? "transposed (RWKV-5 and 6)"
                               : "transposed for RWKV-5 and 6, as it is for RWKV-7: follows the model");
  print_row("written", options.output);
}

void import_state(const Checkpoint& checkpoint, const Options& options) {
  if (options.model.empty()) {
    throw UsageError(
        fmt::format("{} holds a list of tensors, as the Python package's states are: --model "
                    "MODEL says of which model it is",
                    options.input));
  }
  ModelIdentity model = identify_model(options.model, !options.no_crc);
  print_state(convert_state(checkpoint, options.output, &model.config, model.source));
  if (model.config.version != Version::v4) {
    print_row("orientation",
              model.config.version == Version::v7 ? "transposed (RWKV-7)" : "as it is in the file");
  }
  print_row("tokens", "none: the list has neither tokens nor logits, so feed a message before a reply");
  print_row("written", options.output);
}

// A state file as a .pth.
void export_state(const MappedFile& file, const Options& options) {
  refuse_model_options(options);
  if (!options.model.empty())
    throw UsageError(options.input + " says itself of which model it is: no --model");
  check_not_input(options.output, {options.input});
  StateFile state = read_state_file(file);
  write_state_checkpoint(options.output, state);
  print_state(state);
  print_row("as", state.config ? "the list of tensors that the Python package takes and returns"
                               : "a dict of blocks.N.att.time_state [head, value, key]");
  if (!state.tokens.empty()) {
    print_row("left out", fmt::format("{} tokens{}", state.tokens.size(),
                                      state.logits.empty() ? "" : ", and the logits that follow"));
  }
  print_row("written", options.output);
}

// --- What is asked for ---

void verify(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  if (!is_tensor_file(file.bytes()) && is_zip(file.bytes())) {
    throw Error(fmt::format(
        "{}: a PyTorch file, not a converted one: --info and converting compare its checksums", path));
  }
  TensorFileHeader header = parse_tensor_file(file.bytes(), path);
  bool state = is_state_header(header);
  if (state) {
    read_state_file(file);  // compares the checksums, too
  } else {
    ModelFile::open(file);
    ProgressLine progress;
    verify_checksums(header, file.bytes(), path,
                     [&](uint64_t done, uint64_t total) { progress.show("verifying", done, total); });
  }
  fmt::print("{}: {} of {} tensors, {}: structure and checksums are right\n", path, state ? "state" : "model",
             header.entries.size(), human_bytes(file.bytes().size()));
}

void convert(const Options& options) {
  if (options.output.empty()) throw UsageError("an input and an output are needed");
  MappedFile file = MappedFile::open(existing_checkpoint(options.input));
  if (is_tensor_file(file.bytes()) && is_state_header(parse_tensor_file(file.bytes(), file.path()))) {
    return export_state(file, options);
  }
  if (options.to_export)
    throw UsageError(fmt::format("{} is no state file: --export writes one as a .pth", options.input));
  Checkpoint checkpoint = Checkpoint::open(file.path(), {.check_crc = !options.no_crc});
  bool list = checkpoint.is_list(), state = list || is_state_checkpoint(checkpoint);
  if (state) refuse_model_options(options);
  if (list) return import_state(checkpoint, options);
  if (state) return convert_trained_state(checkpoint, options);
  if (!options.model.empty()) throw UsageError("--model is for the Python package's states");
  convert_checkpoint(checkpoint, options);
}

void run(const Options& options) {
  bool alone = options.input.empty() && options.strategy.empty() && options.vocabulary.empty() &&
               options.model.empty() && !options.to_export;
  if (!options.verify.empty()) {
    if (!alone || options.no_crc || !options.info.path.empty())
      throw UsageError("--verify FILE takes no other files and options");
    return verify(options.verify);
  }
  if (options.info.path.empty()) return convert(options);
  if (!alone) throw UsageError("--info FILE takes no other files, no --strategy, --vocab and --model");
  InfoOptions info = options.info;
  info.statistics = !options.no_statistics;
  info.check_crc = !options.no_crc;
  info.threads = options.threads;
  if (options.device_memory) info.device_memory = static_cast<uint64_t>(*options.device_memory);
  print_info(info);
}

// A number alone would be bytes, which nobody means.
CLI::Validator memory_size() {
  const std::map<std::string, double> units = {{"kB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
                                               {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                                               {"K", 1e3},      {"M", 1e6},      {"G", 1e9}};
  using Unit = CLI::AsNumberWithUnit;
  return Unit(units, static_cast<Unit::Options>(Unit::CASE_INSENSITIVE | Unit::UNIT_REQUIRED), "SIZE");
}

void define_options(CLI::App& app, Options& options) {
  app.add_option("IN", options.input, "Checkpoint (.pth), or a state, .pth or not")->check(not_empty());
  app.add_option("OUT", options.output, "File to write; it appears when it is complete")->check(not_empty());
  app.add_option("--strategy", options.strategy,
                 "Strategy that the file is laid out for (default: the checkpoint's precision on the CPU)")
      ->check(not_empty());
  app.add_option(
         "--vocab", options.vocabulary,
         "Vocabulary to put into the file (default: World's or 20B's, by the model's vocabulary size)")
      ->check(not_empty());
  app.add_option("--model", options.model,
                 "The model of a state that the Python package saved: converted or a .pth")
      ->check(not_empty());
  app.add_flag("--export", options.to_export,
               "Write a state as a .pth: what happens to a state file anyway; all else is refused");
  app.add_option("--threads", options.threads, "Threads (default: one per physical core)")
      ->check(CLI::Range(1, 1024));
  app.add_flag("--no-crc", options.no_crc, "Do not compare the checksums of the checkpoint");
  app.add_option("--verify", options.verify,
                 "Check structure and checksums of a converted file or a state, then stop")
      ->check(not_empty());
  auto* info =
      app.add_option("--info", options.info.path,
                     "Tell what a checkpoint, converted file or state is: its shape, its tensors and "
                     "their values, and the memory that strategies take")
          ->check(not_empty());
  app.add_flag("--no-statistics", options.no_statistics, "--info without reading the tensors' values")
      ->needs(info);
  auto* memory =
      app.add_option("--memory", options.info.memory,
                     "--info of the needs of this strategy, or of what auto would choose: of each "
                     "device, beside what is free; fails, with what fits instead, when that is less")
          ->check(not_empty())
          ->needs(info);
  app.add_option("--device-memory", options.device_memory,
                 "--memory for CUDA devices with so much free, such as 7.5GB or 7900MiB, be they here or not")
      ->type_name("SIZE")
      ->transform(memory_size())
      ->check(finite_range(0, 1e18))
      ->needs(memory);
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  Options options;
  return run_program(
      argc, argv,
      {"rwkv-convert",
       "Converts an RWKV checkpoint (.pth) into a file that is mapped into memory and used in place, and "
       "states from .pth\n"
       "files and back: it sees which. Versions 4, 5, 5.1, 5.2, 6 and 7.",
       "  rwkv-convert RWKV-x070-World-1.5B-v3-20250127-ctx4096.pth model.rwkv\n"
       "  rwkv-convert model.pth model.rwkv --strategy 'cpu bf16i8'\n"
       "  rwkv-convert rwkv-x060-chn_single_round_qa-3B-20240505-ctx1024.pth qa.state\n"
       "  rwkv-convert saved.state for-python.pth\n"
       "  rwkv-convert from-python.pth saved.state --model model.rwkv\n"
       "  rwkv-convert --verify model.rwkv\n"
       "  rwkv-convert --info model.pth\n"
       "  rwkv-convert --info model.pth --memory 'cuda fp16i8 *20+' --device-memory 7.5GB\n"
       "  rwkv-convert --info model.pth --memory auto --device-memory 4GB"},
      [&](CLI::App& app) { define_options(app, options); }, [&] { run(options); });
}
