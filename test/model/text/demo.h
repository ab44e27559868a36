// The demo model in memory, for tests that need text, and what tests of replies share.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint/convert.h"
#include "model/executor.h"
#include "model/model.h"
#include "model/text/generate.h"
#include "test/support.h"
#include "tokenizer/tokenizer.h"

namespace rwkv::test {

constexpr const char* demo_question = "what does cuda fp16i8 *20+ do?";
constexpr const char* demo_answer =
    "*N+ keeps N layers on the GPU and streams all other layers to it from host memory while it computes.";

inline std::string demo_path(const std::string& name) { return data_path("../../apps/demo/" + name); }

inline std::shared_ptr<const Model> load_demo(int threads = 1) {
  static const ModelFile file = [] {
    ConvertOptions options;
    options.strategy = "cpu fp32";
    options.vocabulary = MappedFile::open(demo_path("guide-2.5m.vocab.txt"));
    return convert_in_memory(Checkpoint::open(demo_path("guide-2.5m.pth")), options);
  }();
  LoadOptions options;
  options.threads = threads;
  return Model::load(file, options);
}

/// A model with what it takes to run it.
struct Demo {
  std::shared_ptr<const Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  Executor executor;

  explicit Demo(int threads = 1, int64_t chunk = 256)
      : model(load_demo(threads)),
        tokenizer(make_tokenizer(model->file().vocabulary(), "demo")),
        executor(model, chunk) {}

  /// A session that has read this text.
  Session session(std::string_view text) {
    Session session{State(model), {}, {}};
    feed(executor, tokenizer->encode(text), session);
    return session;
  }
  /// The same from token ids.
  Session session(const std::vector<int32_t>& tokens) {
    Session session{State(model), {}, {}};
    feed(executor, tokens, session);
    return session;
  }
  /// A session that is to answer this.
  Session asked(std::string_view question) {
    return session("User: " + std::string(question) + "\n\nAssistant:");
  }
};

/// Bit by bit.
inline bool same_state(const State& a, const State& b) {
  for (int64_t i = 0; i < a.model().config().n_layer; i++) {
    const LayerState &x = a.layer(i), &y = b.layer(i);
    const std::pair<Tensor, Tensor> parts[] = {
        {x.att, y.att}, {x.att_shift, y.att_shift}, {x.ffn_shift, y.ffn_shift}};
    for (const auto& [p, q] : parts) {
      if (std::memcmp(p.data, q.data, static_cast<size_t>(p.elements()) * 4) != 0) return false;
    }
  }
  return true;
}

inline bool same_session(const Session& a, const Session& b) {
  return same_state(a.state, b.state) && a.tokens == b.tokens && a.logits == b.logits;
}

inline SamplerOptions greedy() {
  SamplerOptions options;
  options.temperature = 0;
  return options;
}

/// What a reply shows, piece by piece.
struct Shown {
  std::vector<std::string> pieces;
  std::string text;

  ShowText into() {
    return [this](std::string_view piece) {
      pieces.emplace_back(piece);
      text += piece;
    };
  }
};

}  // namespace rwkv::test
