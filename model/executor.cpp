#include "model/executor.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/checked.h"
#include "core/error.h"

namespace rwkv {

Extent extent_of(const Config& config, const std::vector<LayerPlan>& plan, int64_t chunk) {
  constexpr int64_t long_enough = 4096;
  std::vector<StreamedPart> parts = streamed_parts(config, plan);
  if (parts.empty()) return {chunk, chunk};
  int64_t carried = config.n_embd + (config.version == Version::v7 ? config.n_att : 0);  // Lifetime::layers
  int64_t tokens = std::min(static_cast<int64_t>(slot_bytes(parts)) / (carried * 4), long_enough);
  return {chunk, std::max(tokens / chunk, int64_t{1}) * chunk};
}

Executor::Executor(std::shared_ptr<const Model> model, int64_t chunk) : model_(std::move(model)) {
  if (chunk < 1 || chunk > 65536) throw Error(fmt::format("chunk {}: from 1 to 65536 tokens", chunk));
  extent_ = extent_of(model_->config(), model_->plan(), chunk);
  open_stages();
  const Config& c = model_->config();
  key_.reserve(static_cast<size_t>(c.n_layer) + 1);
  Stage& head = stage(c.n_layer);
  if (!head.host()) {
    logits_memory_ = head.device->allocate(static_cast<size_t>(logit_rows(c, extent_) * c.n_vocab) * 4);
  }
  if (const auto& parts = model_->streamed_parts(); !parts.empty()) {
    Stage& streaming = stage(parts.front().layer);
    streamer_ = std::make_unique<Streamer>(*model_, *streaming.device, *streaming.ops);
  }
  // Last: what is left of a device's memory may be taken for what only makes it faster.
  for (const Stage& s : stages_) s.ops->reserve(operator_limits(c, extent_));
}

void Executor::open_stages() {
  const Config& c = model_->config();
  for (int64_t i = 0; i < c.layers(); i++) {
    Device* device = &model_->device(i);
    auto known = std::ranges::find(stages_, device, &Stage::device);
    layer_stage_.push_back(static_cast<size_t>(known - stages_.begin()));
    if (known != stages_.end()) continue;
    Stage stage{device, device->allocate(activation_bytes(c, extent_)), {}, device->make_ops()};
    stage.all = place_activations(c, extent_, stage.memory.data(), device->id());
    stages_.push_back(std::move(stage));
  }
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
  size_t done = 0;
  while (done < tokens.size()) {
    if (done > 0 && stop && stop(static_cast<int64_t>(done))) break;
    size_t count = std::min(static_cast<size_t>(extent_.span), tokens.size() - done);
    bool last = done + count == tokens.size();
    std::span<float> out = all    ? logits.subspan(done * vocab, count * vocab)
                           : last ? logits
                                  : std::span<float>{};
    run_span(tokens.subspan(done, count), state, out);
    done += count;
  }
  // The state may now be copied, and what went wrong in a queue is known.
  for (Stage& s : stages_) s.ops->synchronize();
  return static_cast<int64_t>(done);
}

void Executor::run_span(std::span<const int32_t> tokens, State& state, std::span<float> logits) {
  const Config& c = model_->config();
  Span span{state, static_cast<int64_t>(tokens.size()), logits};
  Stage& first = stage(0);
  first.ops->embed(first.all.x.slice_rows(0, span.tokens), model_->weights().embedding.table, tokens);
  if (streamer_) streamer_->begin_pass(!logits.empty());
  bool with_head = head_is_layer(span);
  int64_t layers = c.n_layer + (with_head ? 1 : 0);
  for (int64_t layer = 0; layer < layers;) {
    if (layer > 0 && &stage(layer) != &stage(layer - 1)) move(layer, span.tokens);
    int64_t end = run_end(layer, layers);
    run_layers(layer, end, span);
    layer = end;
  }
  if (with_head) return stage(c.n_layer).ops->download(logits.data(), logits_on_device(1));
  if (logits.empty()) return;
  if (&stage(c.n_layer) != &stage(c.n_layer - 1)) move(c.n_layer, span.tokens);
  run_head(span);
}

// When a token is decoded on a device, its head is part of what the device may record.
bool Executor::head_is_layer(const Span& span) {
  return span.tokens == 1 && !span.logits.empty() && !stage(model_->config().n_layer).host() &&
         !model_->plan().back().streamed;
}

// Layers [begin, end) run on one device and are all resident or all streamed.
int64_t Executor::run_end(int64_t begin, int64_t layers) const {
  auto at = [](int64_t i) { return static_cast<size_t>(i); };
  int64_t end = begin + 1;
  while (end < layers && layer_stage_[at(end)] == layer_stage_[at(begin)] &&
         model_->plan()[at(end)].streamed == model_->plan()[at(begin)].streamed) {
    end++;
  }
  return end;
}

void Executor::run_layers(int64_t begin, int64_t end, const Span& span) {
  struct Run {
    Executor& executor;
    int64_t begin, end;
    const Span& span;
  } run{*this, begin, end, span};
  auto work = [&run] {
    for (int64_t i = run.begin; i < run.end; i++) run.executor.run_layer(i, run.span);
  };
  if (span.tokens > 1 || model_->plan()[static_cast<size_t>(begin)].streamed) return work();
  const Config& c = model_->config();
  key_.clear();
  for (int64_t i = begin; i < std::min(end, c.n_layer); i++) key_.push_back(span.state.layer(i).att.data);
  if (end > c.n_layer) key_.push_back(logits_memory_.data());
  stage(begin).ops->repeat(key_, work);
}

void Executor::run_layer(int64_t layer, const Span& span) {
  if (layer == model_->config().n_layer) {
    return compute_head(stage(layer), stage(layer).all.x.slice_rows(0, 1), logits_on_device(1));
  }
  bool streamed = model_->plan()[static_cast<size_t>(layer)].streamed;
  const Layer& weights =
      streamed ? streamer_->acquire_layer(layer) : model_->weights().layers[static_cast<size_t>(layer)];
  Stage& here = stage(layer);
  for (int64_t at = 0; at < span.tokens; at += extent_.chunk) {
    Activations s = chunk_of(here.all, model_->config(), at, std::min(extent_.chunk, span.tokens - at));
    rwkv::forward(weights, {*here.ops, span.state.layer(layer), s});
  }
  if (streamed) streamer_->release();
}

// What goes from layer to layer, from the device before to that of `layer`.
void Executor::move(int64_t layer, int64_t tokens) {
  Stage &from = stage(layer - 1), &to = stage(layer);
  auto move_one = [&](const Tensor& t, const Tensor& source) {
    Tensor target = t.slice_rows(0, tokens), x = source.slice_rows(0, tokens);
    if (from.host()) {
      to.ops->upload(target, x.f32());
    } else if (to.host()) {
      from.ops->download(target.f32(), x);
    } else {
      to.ops->receive(target, *from.ops, x);
    }
  };
  move_one(to.all.x, from.all.x);
  if (to.all.v_first && layer < model_->config().n_layer) move_one(to.all.v_first, from.all.v_first);
}

void Executor::run_head(const Span& span) {
  const Config& c = model_->config();
  Stage& here = stage(c.n_layer);
  int64_t rows = static_cast<int64_t>(span.logits.size()) / c.n_vocab, first = span.tokens - rows;
  // A streamed head comes once, for all rows; a resident one takes as many as there is room for.
  int64_t at_once = here.host() ? extent_.chunk : logit_rows(c, extent_);
  for (int64_t at = 0; at < rows; at += at_once) {
    int64_t count = std::min(at_once, rows - at);
    float* out = span.logits.data() + at * c.n_vocab;
    Tensor logits = matrix_view(here.host() ? reinterpret_cast<std::byte*>(out) : logits_memory_.data(),
                                DType::f32, count, c.n_vocab);
    compute_head(here, here.all.x.slice_rows(first + at, count), logits);
    if (!here.host()) here.ops->download(out, logits);
  }
}

Tensor Executor::logits_on_device(int64_t rows) const {
  Tensor t = matrix_view(logits_memory_.data(), DType::f32, rows, model_->config().n_vocab);
  t.device = model_->device(model_->config().n_layer).id();
  return t;
}

void Executor::compute_head(Stage& here, const Tensor& x, const Tensor& logits) {
  const Head& w = model_->weights().head;
  here.ops->layer_norm(x, x, w.ln_out);
  if (!model_->plan().back().streamed) {
    const Product product[] = {{x, w.head, logits}};
    here.ops->matmul(product);
    return;
  }
  for (size_t piece = 0; piece < streamer_->head_pieces(); piece++) {
    int64_t first = 0;
    Tensor weight = streamer_->acquire_head(piece, first);
    const Product product[] = {{x, weight, logits.slice_cols(first, weight.sizes[0])}};
    here.ops->matmul(product);
    streamer_->release();
  }
}

}  // namespace rwkv
