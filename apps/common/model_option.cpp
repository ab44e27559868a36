#include "apps/common/model_option.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "apps/common/terminal.h"
#include "core/error.h"
#include "model/auto_strategy.h"
#include "model/checkpoint/convert.h"
#include "model/checkpoint/pth.h"

namespace rwkv::apps {
namespace {

namespace fs = std::filesystem;

struct KnownVocabulary {
  int64_t tokens;
  const char* file;
};
constexpr KnownVocabulary known_vocabularies[] = {{65536, "rwkv_vocab_v20230424.txt"},
                                                  {50277, "20B_tokenizer.json"}};

// Beside the programs: BUILD/share/rwkv for BUILD/apps/chat, PREFIX/share/rwkv for PREFIX/bin/rwkv-chat.
fs::path share_directory() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path().parent_path() / "share" / "rwkv";
}

// What `auto` stands for on this machine.
std::string resolve_strategy(const ModelOptions& options, const Config& config, const Strategy& made_for) {
  if (options.strategy != "auto") return options.strategy;
  const auto devices = usable_devices(options.threads);
  Strategy chosen = choose_strategy(config, made_for, options.chunk, measure_rates(devices), devices);
  write_notice(fmt::format("strategy: {}\n", to_string(chosen)));
  return to_string(chosen);
}

ModelFile open_file(const ModelOptions& options, LoadOptions& load, ProgressLine& progress) {
  MappedFile file = MappedFile::open(existing_checkpoint(options.model));
  if (is_tensor_file(file.bytes())) {
    ModelFile model = ModelFile::open(std::move(file));
    load.strategy = resolve_strategy(options, model.config, model.strategy);
    return model;
  }
  Checkpoint checkpoint = Checkpoint::open(file.path());
  ModelCheckpoint model(checkpoint);
  ConvertOptions convert;
  convert.strategy = resolve_strategy(options, model.config(), default_strategy(model));
  convert.threads = options.threads;
  convert.vocabulary = find_vocabulary("", model.config().n_vocab);
  convert.progress = [&](uint64_t done, uint64_t total) { progress.show("converting", done, total); };
  return convert_in_memory(checkpoint, convert);
}

}  // namespace

void add_model_options(CLI::App& app, ModelOptions& options, bool text,
                       std::vector<std::string>* strategies) {
  constexpr const char* type = "auto|STRATEGY";
  constexpr const char* about =
      "Device and precision of each layer, such as 'cuda fp16i8 *20+' or 'cpu fp32i8 *2 -> cpu bf16', or "
      "auto: the fastest that fits (default: the file's)";
  app.add_option("MODEL", options.model, "A file made by rwkv-convert, or a .pth checkpoint")
      ->required()
      ->check(not_empty());
  if (strategies == nullptr) {
    app.add_option("--strategy", options.strategy, about)->type_name(type)->check(not_empty());
  } else {
    app.add_option("--strategy", *strategies, std::string(about) + "; several: each")
        ->type_name(type)
        ->check(not_empty())
        ->expected(1)
        ->take_all();
  }
  app.add_option("--chunk", options.chunk, "Tokens that go through a layer at once (default 256)")
      ->check(CLI::Range(1, 65536));
  app.add_option("--threads", options.threads, "Threads (default: one per physical core)")
      ->check(CLI::Range(1, 1024));
  app.add_flag(
      "--huge-pages", options.huge_pages,
      "Copy the CPU's weights into huge pages instead of using the mapped file: faster to run, slower to "
      "start");
  if (text)
    app.add_option("--vocab", options.vocabulary,
                   "Vocabulary file, or model file that holds one, in place of the model file's")
        ->check(not_empty());
}

std::shared_ptr<const Model> open_model(const ModelOptions& options) {
  ProgressLine progress;
  LoadOptions load;
  load.threads = options.threads;
  load.chunk = options.chunk;
  load.huge_pages = options.huge_pages;
  load.progress = [&](const std::string& what, uint64_t done, uint64_t total) {
    progress.show(what, done, total);
  };
  ModelFile file = open_file(options, load, progress);
  return Model::load(std::move(file), load);
}

std::string describe_devices(const Model& model) {
  std::string text;
  const Device* last = nullptr;
  for (int64_t i = 0; i < model.config().layers(); i++) {
    const Device* device = &model.device(i);
    if (device != last) text += (last == nullptr ? "" : ", ") + device->description();
    last = device;
  }
  return text;
}

std::unique_ptr<Tokenizer> open_vocabulary(const std::string& path) {
  MappedFile file = MappedFile::open(path);
  // A model file begins with its header's length, in eight bytes; text has no zero there.
  const bool is_model = is_tensor_file(file.bytes()) && file.bytes()[7] == std::byte{0};
  auto none = [&] {
    return Error(fmt::format("{}: holds no vocabulary; name a vocabulary file instead", path));
  };
  if (is_checkpoint(file.bytes())) throw none();
  if (!is_model) return make_tokenizer(file.bytes(), path);
  const ModelFile model = ModelFile::open(std::move(file));
  if (model.vocabulary().empty()) throw none();
  return make_tokenizer(model.vocabulary(), path);
}

std::unique_ptr<Tokenizer> open_tokenizer(const Model& model, const ModelOptions& options) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (!options.vocabulary.empty()) {
    tokenizer = open_vocabulary(options.vocabulary);
  } else if (auto bytes = model.file().vocabulary(); !bytes.empty()) {
    tokenizer = make_tokenizer(bytes, model.file().file.path());
  } else {
    throw Error(fmt::format("{}: holds no vocabulary, so it cannot read or write text: give one with --vocab",
                            model.file().file.path()));
  }
  if (tokenizer->size() > model.config().n_vocab) {
    throw Error(
        fmt::format("the vocabulary has ids up to {}, but the model has only {} tokens: give the model's "
                    "own vocabulary with --vocab",
                    tokenizer->size() - 1, model.config().n_vocab));
  }
  return tokenizer;
}

std::string existing_checkpoint(const std::string& path) {
  std::error_code ignored;
  std::string with_suffix = path + ".pth";
  return !fs::exists(path, ignored) && fs::exists(with_suffix, ignored) ? with_suffix : path;
}

MappedFile find_vocabulary(const std::string& given, int64_t n_vocab) {
  if (!given.empty()) {
    MappedFile file = MappedFile::open(given);
    if (file.bytes().empty()) throw Error(fmt::format("{}: is empty, not a vocabulary", given));
    return file;
  }
  for (const auto& known : known_vocabularies) {
    fs::path path = share_directory() / known.file;
    std::error_code ignored;
    if (known.tokens == n_vocab && fs::exists(path, ignored)) return MappedFile::open(path.string());
  }
  return {};
}

}  // namespace rwkv::apps
