// Makes model files and state files from checkpoints, and checks them.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "core/error.h"
#include "model/checkpoint/convert.h"
#include "model/state_file.h"

namespace rwkv::apps {
namespace {

struct Options {
  std::string input, output, strategy, vocabulary, verify;
  int threads = 0;
  bool no_crc = false;
};

void print_row(const char* name, const std::string& value) { fmt::print("{:<12}{}\n", name, value); }

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
  print_row("model",
            fmt::format("RWKV-{}, {} layers, n_embd {}, n_ffn {}{}", name_of(c.version), c.n_layer, c.n_embd,
                        c.n_ffn, c.head_size > 0 ? fmt::format(", head size {}", c.head_size) : ""));
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

void convert_state_file(const Checkpoint& checkpoint, const Options& options) {
  if (!options.strategy.empty() || !options.vocabulary.empty()) {
    throw UsageError(
        fmt::format("{} is a state file, which has no strategy and no vocabulary", options.input));
  }
  StateShape shape = convert_state(checkpoint, options.output);
  int named = version_in_name(std::filesystem::path(options.input).filename().string());
  print_row("state",
            fmt::format("{} layers, {} heads of size {}", shape.layers, shape.heads, shape.head_size));
  print_row("for", named == 0 ? "RWKV-5, 6 or 7 of this shape" : fmt::format("RWKV-{} by its name", named));
  print_row("orientation", named == 7 ? "as it is in the file (RWKV-7)"
                           : named >= 5
                               ? "transposed (RWKV-5 and 6)"
                               : "transposed for RWKV-5 and 6, as it is for RWKV-7: follows the model");
  print_row("written", options.output);
}

void verify(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  TensorFileHeader header = parse_tensor_file(file.bytes(), path);
  const std::string* kind = header.metadata_value("rwkv.kind");
  bool model = kind == nullptr || *kind != "state";
  if (model) {
    ModelFile::open(file);
  } else {
    check_state_header(header, path);
  }
  ProgressLine progress;
  verify_checksums(header, file.bytes(), path,
                   [&](uint64_t done, uint64_t total) { progress.show("verifying", done, total); });
  progress.clear();
  fmt::print("{}: {} of {} tensors, {}: structure and checksums are right\n", path, model ? "model" : "state",
             header.entries.size(), human_bytes(file.bytes().size()));
}

void run(const Options& options) {
  if (!options.verify.empty()) {
    bool alone =
        options.input.empty() && options.strategy.empty() && options.vocabulary.empty() && !options.no_crc;
    if (!alone) throw UsageError("--verify FILE takes no other files and options");
    return verify(options.verify);
  }
  if (options.output.empty()) throw UsageError("an input and an output are needed");
  Checkpoint checkpoint =
      Checkpoint::open(existing_checkpoint(options.input), {.check_crc = !options.no_crc});
  if (is_state_checkpoint(checkpoint)) {
    convert_state_file(checkpoint, options);
  } else {
    convert_checkpoint(checkpoint, options);
  }
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  Options options;
  return run_program(
      argc, argv,
      {"rwkv-convert",
       "Converts an RWKV checkpoint (.pth) into a file that is mapped into memory and used in place, or a "
       "trained state\n"
       "into a state file: it sees which. Versions 4, 5, 5.1, 5.2, 6 and 7.",
       "  rwkv-convert RWKV-x070-World-1.5B-v3-20250127-ctx4096.pth model.rwkv\n"
       "  rwkv-convert model.pth model.rwkv --strategy 'cpu bf16i8'\n"
       "  rwkv-convert rwkv-x060-chn_single_round_qa-3B-20240505-ctx1024.pth qa.state\n"
       "  rwkv-convert --verify model.rwkv"},
      [&](CLI::App& app) {
        app.add_option("IN", options.input, "Checkpoint or state file (.pth)");
        app.add_option("OUT", options.output, "File to write; it appears when it is complete");
        app.add_option(
               "--strategy", options.strategy,
               "Strategy that the file is laid out for (default: the checkpoint's precision on the CPU)")
            ->type_name("STRATEGY")
            ->check(not_empty());
        app.add_option(
               "--vocab", options.vocabulary,
               "Vocabulary to put into the file (default: World's or 20B's, by the model's vocabulary size)")
            ->check(not_empty());
        app.add_option("--threads", options.threads, "Threads (default: one per physical core)")
            ->check(CLI::Range(1, 1024));
        app.add_flag("--no-crc", options.no_crc, "Do not compare the checksums of the checkpoint");
        app.add_option("--verify", options.verify,
                       "Check structure and checksums of a converted file, then stop")
            ->check(not_empty());
      },
      [&] { run(options); });
}
