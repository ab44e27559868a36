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

/// Activations, allocated once for the longest chunk and used by every layer; fp32. A version uses what it
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

/// Calls f(member, rows, columns) with the sizes of every member for T tokens; members that the version does
/// not use are left out.
template <class F>
void for_each_activation(Activations& s, const Config& c, int64_t tokens, F f) {
  bool v6 = c.version == Version::v6, v7 = c.version == Version::v7;
  f(s.x, tokens, c.n_embd);
  f(s.normalized, tokens + 1, c.n_embd);
  for (size_t i = 0; i < (v6 || v7 ? 6 : 4); i++) f(s.mixed[i], tokens, c.n_embd);
  for (Tensor* t : {&s.r, &s.k, &s.v, &s.out}) f(*t, tokens, c.n_att);
  if (c.version != Version::v4) f(s.gate, tokens, c.n_att);
  if (v6 || v7) f(s.decay, tokens, c.n_att);
  if (v6) {
    f(s.hidden[0], tokens, 5 * c.mix_rank);
    f(s.hidden[1], tokens, c.decay_rank);
  }
  if (v7) {
    for (Tensor* t : {&s.a, &s.v_first, &s.v_gate}) f(*t, tokens, c.n_att);
    const std::array<int64_t, 4> ranks = {c.decay_rank, c.a_rank, c.v_rank, c.g_rank};
    for (size_t i = 0; i < 4; i++) f(s.hidden[i], tokens, ranks[i]);
  } else {
    f(s.receptance, tokens, c.n_embd);
  }
  f(s.ffn, tokens, c.n_ffn);
}

struct Pass {
  Ops& ops;
  LayerState state;
  Activations& s;  ///< views of exactly this chunk's tokens
};

}  // namespace rwkv
