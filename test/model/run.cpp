#include "test/model/run.h"

#include <algorithm>
#include <cstring>

#include "model/checkpoint/convert.h"

namespace rwkv::test {

std::shared_ptr<const Model> load_checkpoint(const std::string& path, const std::string& strategy,
                                             int threads) {
  ConvertOptions convert;
  convert.strategy = strategy;
  convert.threads = threads;
  LoadOptions load;
  load.threads = threads;
  return Model::load(convert_in_memory(Checkpoint::open(path), convert), load);
}

std::shared_ptr<const Model> load_file(const std::string& path, const std::string& strategy, int threads) {
  LoadOptions load;
  load.strategy = strategy;
  load.threads = threads;
  return Model::load(ModelFile::open(path), load);
}

std::vector<float> run(const std::shared_ptr<const Model>& model, std::span<const int32_t> tokens,
                       int64_t chunk, State& state) {
  Executor executor(model, chunk);
  auto vocab = static_cast<size_t>(model->config().n_vocab), step = static_cast<size_t>(chunk);
  std::vector<float> logits(tokens.size() * vocab);
  for (size_t at = 0; at < tokens.size(); at += step) {
    size_t count = std::min(step, tokens.size() - at);
    executor.forward(tokens.subspan(at, count), state, std::span(logits).subspan(at * vocab, count * vocab));
  }
  return logits;
}

std::vector<float> run(const std::shared_ptr<const Model>& model, std::span<const int32_t> tokens,
                       int64_t chunk) {
  State state(model);
  return run(model, tokens, chunk, state);
}

std::vector<std::vector<float>> values_of(const State& state) {
  std::vector<std::vector<float>> values;
  for (int64_t i = 0; i < state.model().config().n_layer; i++) {
    const LayerState& layer = state.layer(i);
    for (const Tensor* t : {&layer.att_shift, &layer.att, &layer.ffn_shift}) {
      std::vector<float> copy(static_cast<size_t>(t->elements()));
      state.model().device(i).copy_out(reinterpret_cast<std::byte*>(copy.data()), t->data, copy.size() * 4);
      values.push_back(std::move(copy));
    }
  }
  return values;
}

bool same_bits(const State& a, const State& b) {
  auto x = values_of(a), y = values_of(b);
  return std::ranges::equal(x, y, [](const auto& p, const auto& q) { return same_bits(p, q); });
}

}  // namespace rwkv::test
