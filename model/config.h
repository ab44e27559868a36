// The shape of a model: what follows from the names and sizes of its tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/dtype.h"

namespace rwkv {

enum class Version : uint8_t { v4, v5_0, v5_1, v5_2, v6, v7 };

/// "4", "5.0", "5.1", "5.2", "6", "7".
std::string_view name_of(Version version);
std::optional<Version> version_of(std::string_view name);

struct Config {
  Version version = Version::v4;
  int64_t n_layer = 0;
  int64_t n_embd = 0;      ///< D, width of the residual stream
  int64_t n_att = 0;       ///< A, width of time mixing
  int64_t n_ffn = 0;       ///< F, hidden width of channel mixing
  int64_t n_vocab = 0;     ///< tokens, with ids from 0
  int64_t head_size = 0;   ///< N; 0 for version 4, which has no heads
  int64_t mix_rank = 0;    ///< version 6: of the data-dependent token shift, for each of its five parts
  int64_t decay_rank = 0;  ///< versions 6 and 7
  int64_t a_rank = 0;      ///< version 7, as the next two
  int64_t v_rank = 0;
  int64_t g_rank = 0;
  bool has_time_state = false;  ///< a trained initial state was merged into the model
  /// Of the checkpoint's matrices, when all have the same: fp32, fp16 or bf16. The CPU's layers in fp32 keep
  /// them so, since what is multiplied is the same.
  DType weights = DType::f32;

  [[nodiscard]] int64_t heads() const { return head_size == 0 ? 0 : n_att / head_size; }
  /// Layers as a strategy counts them: the head, with the last normalization, is the last one.
  [[nodiscard]] int64_t layers() const { return n_layer + 1; }

  bool operator==(const Config&) const = default;
};

/// Throws Error, `what` first, when sizes are out of bounds or do not fit together.
void check_config(const Config& config, const std::string& what);

/// Calls f(name, member) for every whole-number field: for writing and reading them.
template <class C, class F>
void for_each_size(C& c, F f) {
  f("n_layer", c.n_layer);
  f("n_embd", c.n_embd);
  f("n_att", c.n_att);
  f("n_ffn", c.n_ffn);
  f("n_vocab", c.n_vocab);
  f("head_size", c.head_size);
  f("mix_rank", c.mix_rank);
  f("decay_rank", c.decay_rank);
  f("a_rank", c.a_rank);
  f("v_rank", c.v_rank);
  f("g_rank", c.g_rank);
}

}  // namespace rwkv
