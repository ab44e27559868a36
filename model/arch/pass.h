// What a layer needs to run: the operators, its state, and the activations of a chunk of tokens.
#pragma once

#include <array>

#include "model/config.h"
#include "ops/ops.h"

namespace rwkv {

/// The state of one layer. Version 4: att [3, A] (see Wkv4); others: att [H, N, N], [head][key][value].
struct LayerState {
  Tensor att_shift;  ///< [D], the last token's input of time mixing
  Tensor att;
  Tensor ffn_shift;  ///< [D]
};

/// Activations, allocated once on each device and used by every layer there; fp32. A version uses what it
/// needs.
struct Activations {
  Tensor x;                      ///< [T, D], the residual stream
  Tensor normalized;             ///< [T + 1, D]
  std::array<Tensor, 6> mixed;   ///< [T, D]
  Tensor r, k, v, out;           ///< [T, A]
  Tensor gate, decay;            ///< [T, A]
  Tensor a, v_first, v_gate;     ///< [T, A]
  std::array<Tensor, 4> hidden;  ///< [T, low rank]
  Tensor receptance;             ///< [T, D]
  Tensor ffn;                    ///< [T, F]
};

/// Tokens that a member has room for.
enum class Lifetime : uint8_t {
  layer,          ///< of a chunk, used within one layer
  layer_and_one,  ///< of a chunk and the token before it
  layers,         ///< of a span, carried from layer to layer
};

/// Calls f(member, lifetime, columns) for every member that the version uses.
template <class F>
void for_each_activation(Activations& s, const Config& c, F f) {
  bool v6 = c.version == Version::v6, v7 = c.version == Version::v7;
  f(s.x, Lifetime::layers, c.n_embd);
  f(s.normalized, Lifetime::layer_and_one, c.n_embd);
  for (size_t i = 0; i < (v6 || v7 ? 6 : 4); i++) f(s.mixed[i], Lifetime::layer, c.n_embd);
  for (Tensor* t : {&s.r, &s.k, &s.v, &s.out}) f(*t, Lifetime::layer, c.n_att);
  if (c.version != Version::v4) f(s.gate, Lifetime::layer, c.n_att);
  if (v6 || v7) f(s.decay, Lifetime::layer, c.n_att);
  if (v6) {
    f(s.hidden[0], Lifetime::layer, 5 * c.mix_rank);
    f(s.hidden[1], Lifetime::layer, c.decay_rank);
  }
  if (v7) {
    f(s.v_first, Lifetime::layers, c.n_att);
    for (Tensor* t : {&s.a, &s.v_gate}) f(*t, Lifetime::layer, c.n_att);
    const std::array<int64_t, 4> ranks = {c.decay_rank, c.a_rank, c.v_rank, c.g_rank};
    for (size_t i = 0; i < 4; i++) f(s.hidden[i], Lifetime::layer, ranks[i]);
  } else {
    f(s.receptance, Lifetime::layer, c.n_embd);
  }
  f(s.ffn, Lifetime::layer, c.n_ffn);
}

struct Pass {
  Ops& ops;
  LayerState state;
  Activations& s;  ///< views of exactly this chunk's tokens
};

}  // namespace rwkv
