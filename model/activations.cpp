#include "model/activations.h"

#include <algorithm>

#include "core/checked.h"

namespace rwkv {
namespace {

constexpr int64_t logit_bytes = 16 << 20;

int64_t rows_of(Lifetime lifetime, const Extent& extent) {
  switch (lifetime) {
    case Lifetime::layer_and_one:
      return extent.chunk + 1;
    case Lifetime::layers:
      return extent.span;
    default:
      return extent.chunk;
  }
}

int64_t padded_bytes(int64_t rows, int64_t cols) { return round_up(rows * cols * 4, 64); }

}  // namespace

uint64_t activation_bytes(const Config& config, const Extent& extent) {
  Activations unused;
  uint64_t bytes = 0;
  for_each_activation(unused, config, [&](Tensor&, Lifetime lifetime, int64_t cols) {
    bytes += static_cast<uint64_t>(padded_bytes(rows_of(lifetime, extent), cols));
  });
  return bytes;
}

Activations place_activations(const Config& config, const Extent& extent, std::byte* memory, uint8_t device) {
  Activations all;
  for_each_activation(all, config, [&](Tensor& t, Lifetime lifetime, int64_t cols) {
    int64_t rows = rows_of(lifetime, extent);
    t = matrix_view(memory, DType::f32, rows, cols);
    t.device = device;
    memory += padded_bytes(rows, cols);
  });
  return all;
}

Activations chunk_of(const Activations& whole, const Config& config, int64_t at, int64_t tokens) {
  Activations part = whole;
  for_each_activation(part, config, [&](Tensor& t, Lifetime lifetime, int64_t) {
    t = t.slice_rows(lifetime == Lifetime::layers ? at : 0,
                     tokens + (lifetime == Lifetime::layer_and_one ? 1 : 0));
  });
  return part;
}

int64_t logit_rows(const Config& config, const Extent& extent) {
  return std::clamp<int64_t>(logit_bytes / (config.n_vocab * 4), 1, extent.chunk);
}

Ops::Limits operator_limits(const Config& c, const Extent& extent) {
  // More inputs than any list of products in model/arch has: at most seven wide ones or all low-rank ones.
  int64_t width = round_up(std::max(c.n_embd, c.n_att), 64), ranks = 5 * round_up(c.mix_rank, 64);
  for (int64_t rank : {5 * c.mix_rank, c.decay_rank, c.a_rank, c.v_rank, c.g_rank})
    ranks += round_up(rank, 64);
  Ops::Limits limits;
  limits.tokens = extent.chunk;
  limits.product_inputs = 8 * width + round_up(c.n_ffn, 64) + ranks;
  limits.product_outputs = std::max({c.n_vocab, c.n_ffn, c.n_att, c.n_embd, 5 * c.mix_rank});
  limits.transfer_bytes =
      std::max(extent.span * std::max(c.n_embd, c.n_att), logit_rows(c, extent) * c.n_vocab) * 4;
  return limits;
}

}  // namespace rwkv
