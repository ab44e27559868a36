// The MODEL argument and the options that go with it.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace rwkv::apps {

struct ModelOptions {
  std::string model;
  std::string strategy;
  std::string vocabulary;
  int threads = 0;
  int64_t chunk = 256;
  bool huge_pages = false;
};

/// MODEL, --strategy (`auto` too), --threads, --chunk, --huge-pages; with `text`, --vocab too.
/// With `strategies`, --strategy may be given several times and goes there.
void add_model_options(CLI::App& app, ModelOptions& options, bool text,
                       std::vector<std::string>* strategies = nullptr);

/// Opens a converted file, or a .pth (converted into memory first), with progress. Prints which strategy
/// `auto` stands for. NAME stands for NAME.pth too when only that exists.
std::shared_ptr<const Model> open_model(const ModelOptions& options);

/// The devices of a model's layers, such as "cuda:0 (...), cpu (avx2, 4 threads)".
std::string describe_devices(const Model& model);

/// The tokenizer of a vocabulary file, or of a model file with its vocabulary inside. Throws Error.
std::unique_ptr<Tokenizer> open_vocabulary(const std::string& path);

/// The tokenizer of --vocab, or of the model file. Throws Error that says what to do when there is none.
std::unique_ptr<Tokenizer> open_tokenizer(const Model& model, const ModelOptions& options);

/// The path as given, or with .pth behind it when only that file exists.
std::string existing_checkpoint(const std::string& path);

/// The vocabulary file for a checkpoint of `n_vocab` tokens: `given`, or the one installed with the programs
/// for that size; empty when there is none.
MappedFile find_vocabulary(const std::string& given, int64_t n_vocab);

}  // namespace rwkv::apps
