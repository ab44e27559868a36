#include "model/executor.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/checked.h"
#include "core/error.h"

namespace rwkv {

Executor::Executor(std::shared_ptr<const Model> model, int64_t chunk)
    : model_(std::move(model)), chunk_(chunk), ops_(model_->device(0).make_ops()) {
  if (chunk < 1 || chunk > 65536) throw Error(fmt::format("chunk {}: from 1 to 65536 tokens", chunk));
  const Config& c = model_->config();
  uint64_t floats = 0;
  for_each_activation(full_, c, chunk_, [&](Tensor&, int64_t rows, int64_t cols) {
    floats += static_cast<uint64_t>(round_up(rows * cols, 16));
  });
  memory_ = model_->device(0).allocate(checked_mul(floats, 4, "activations"));
  auto* next = reinterpret_cast<float*>(memory_.data());
  for_each_activation(full_, c, chunk_, [&](Tensor& t, int64_t rows, int64_t cols) {
    t = matrix_view(next, DType::f32, rows, cols);
    next += round_up(rows * cols, 16);
  });
  // More than any list of products in model/arch has: at most seven wide inputs or all low-rank ones.
  int64_t width = round_up(std::max(c.n_embd, c.n_att), 64), ranks = 5 * round_up(c.mix_rank, 64);
  for (int64_t rank : {5 * c.mix_rank, c.decay_rank, c.a_rank, c.v_rank, c.g_rank})
    ranks += round_up(rank, 64);
  ops_->reserve({chunk_, 8 * width + round_up(c.n_ffn, 64) + ranks});
}

void Executor::check_tokens(std::span<const int32_t> tokens) const {
  for (int32_t token : tokens) {
    if (token < 0 || token >= model_->config().n_vocab) {
      throw Error(fmt::format("token {} is outside the model's vocabulary (0 to {})", token,
                              model_->config().n_vocab - 1));
    }
  }
}

int64_t Executor::forward(std::span<const int32_t> tokens, State& state, std::span<float> logits,
                          const std::function<bool(int64_t)>& stop) {
  auto vocab = static_cast<size_t>(model_->config().n_vocab);
  bool all = !logits.empty() && logits.size() == tokens.size() * vocab;
  if (!logits.empty() && !all && logits.size() != vocab) {
    throw Error(fmt::format("forward: room for {} logits; it must be for one token ({}) or for all",
                            logits.size(), vocab));
  }
  if (&state.model() != model_.get()) throw Error("forward: the state belongs to another model");
  check_tokens(tokens);
  for (size_t at = 0; at < tokens.size();) {
    if (at > 0 && stop && stop(static_cast<int64_t>(at))) return static_cast<int64_t>(at);
    size_t count = std::min(static_cast<size_t>(chunk_), tokens.size() - at);
    bool last = at + count == tokens.size();
    std::span<float> out = all    ? logits.subspan(at * vocab, count * vocab)
                           : last ? logits
                                  : std::span<float>{};
    run_chunk(tokens.subspan(at, count), state, out);
    at += count;
  }
  return static_cast<int64_t>(tokens.size());
}

void Executor::run_chunk(std::span<const int32_t> tokens, State& state, std::span<float> logits) {
  const Config& c = model_->config();
  const Weights& w = model_->weights();
  auto count = static_cast<int64_t>(tokens.size());
  Activations s = full_;
  for_each_activation(s, c, count, [](Tensor& t, int64_t rows, int64_t) { t = t.slice_rows(0, rows); });
  ops_->embed(s.x, w.embedding.table, tokens);
  for (int64_t i = 0; i < c.n_layer; i++) {
    rwkv::forward(w.layers[static_cast<size_t>(i)], {*ops_, state.layer(i), s});
  }
  if (logits.empty()) return;
  int64_t rows = static_cast<int64_t>(logits.size()) / c.n_vocab;
  Tensor x = s.x.slice_rows(count - rows, rows);
  ops_->layer_norm(x, x, w.head.ln_out);
  const Product head[] = {{x, w.head.head, matrix_view(logits.data(), DType::f32, rows, c.n_vocab)}};
  ops_->matmul(head);
}

}  // namespace rwkv
