// How the tokens of a chunk pass through heads with a state S[key][value] (RWKV-5, 6, 7): one block for each
// head, in one launch.
//
// Some warps, the state's, hold S in registers for the whole chunk (head_state.h) and need no barrier from
// token to token. The other warps have a token each: they load its inputs, compute what the state's warps
// need of it, and later normalize and store what these made of it.
// That goes in batches of `slots` tokens, one step after the other, with one barrier for each:
//   step      token warps: finish batch step - 2, prepare batch step       state's warps: batch step - 1
// No sum depends on where a batch or a chunk begins.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "core/error.h"
#include "cuda/kernels/epilogue.h"
#include "cuda/kernels/head_state.h"
#include "cuda/kernels/row_dot.h"
#include "cuda/kernels/vector.h"
#include "cuda/launch.h"
#include "cuda/shared.h"
#include "ops/ops.h"

namespace rwkv::cuda {

constexpr int max_low_rank = 4;

/// One row for each token, or the same for all (stride 0); null: none.
struct TokenRows {
  const float* data;
  int64_t stride;
};

inline TokenRows token_rows(const Tensor& t) {
  return t ? TokenRows{t.f32(), t.rank == 2 ? t.stride : 0} : TokenRows{};
}

/// A product of one token that gives an input of the recurrence.
struct LowRank {
  WeightRows weight;
  const float* x;
};

/// What a version is: enum Input { ..., in_gate, inputs }, the rows that a token has; enum Vector { ...,
/// weight, bias, vectors }, the model's vectors; enum Row { ..., row_value, row_gate, row_y, rows }, a
/// token's rows in shared memory; bonus_first, whether bonus * value is added before the normalization or
/// after it; prepare, step.
template <class Version>
struct RecurrenceArguments {
  TokenRows inputs[Version::inputs];
  const float* vectors[Version::vectors];
  float *state, *out;
  int64_t out_stride;
  int tokens, head_size, gated, low_ranks;
  LowRank low_rank[max_low_rank];
  struct {
    int product;   // the low-rank product that gives the input from its bias, or -1
    int epilogue;  // what follows it: an Epilogue
  } given[Version::inputs];
};

/// A token in shared memory. What a head lacks of `padded` channels is zero.
template <class Version, int padded>
struct alignas(16) Token {
  float row[Version::rows][padded];
  float bonus[32];  // one number, for each lane of the token's warp: the token's lanes share nothing here
};

/// Tokens of a batch, so that shared memory suffices.
template <int padded>
constexpr int slots_of = padded <= 64 ? 8 : 512 / padded;

// --- What the token warps do. Lane `lane` has channels lane, lane + 32, ... ---

/// The inputs of one token as they arrive, so that all loads are under way before the first is used.
template <class Version, int padded>
struct Arrived {
  float value[Version::inputs][padded / 32];
};

template <class Version, int padded>
__device__ inline void load_token(const RecurrenceArguments<Version>& a, int64_t token,
                                  Arrived<Version, padded>& arrived) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * a.head_size;
#pragma unroll
  for (int i = 0; i < Version::inputs; i++) {
#pragma unroll
    for (int q = 0; q < padded / 32; q++) {
      const int channel = lane + 32 * q;
      const TokenRows rows = a.inputs[i];
      arrived.value[i][q] = 0;
      if (rows.data != nullptr && channel < a.head_size)
        arrived.value[i][q] = rows.data[token * rows.stride + first + channel];
    }
  }
}

/// out = (normalize(y) + bonus * value) * gate, or normalize(y + bonus * value) * gate.
template <class Version, int padded>
__device__ inline void finish_token(const RecurrenceArguments<Version>& a, int64_t token,
                                    const Token<Version, padded>& t,
                                    const float (&vectors)[Version::vectors][padded]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, size = a.head_size;
  float y[padded / 32], sum = 0, squares = 0;
#pragma unroll
  for (int q = 0; q < padded / 32; q++) {
    const int channel = lane + 32 * q;
    y[q] = t.row[Version::row_y][channel];
    if (Version::bonus_first) y[q] = fmaf(t.bonus[lane], t.row[Version::row_value][channel], y[q]);
    if (channel < size) sum += y[q];
  }
  const auto count = static_cast<float>(size);
  const float mean = warp_sum(sum) / count;
#pragma unroll
  for (int q = 0; q < padded / 32; q++) {
    if (lane + 32 * q < size) squares = fmaf(y[q] - mean, y[q] - mean, squares);
  }
  const float scale = 1.0f / sqrtf(warp_sum(squares) / count + group_norm_epsilon);
  float* out = a.out + token * a.out_stride + static_cast<int64_t>(blockIdx.x) * size;
#pragma unroll
  for (int q = 0; q < padded / 32; q++) {
    const int channel = lane + 32 * q;
    float result =
        fmaf((y[q] - mean) * scale, vectors[Version::weight][channel], vectors[Version::bias][channel]);
    if (!Version::bonus_first) result = fmaf(t.bonus[lane], t.row[Version::row_value][channel], result);
    if (a.gated != 0) result *= t.row[Version::row_gate][channel];
    if (channel < size) out[channel] = result;
  }
}

/// Products of this head's channels: dots[p][channel]. All warps of the block take pieces of all products in
/// turn, so that one product's loads don't wait for another's.
template <class Version, int padded>
__device__ inline void low_rank_dots(const RecurrenceArguments<Version>& a,
                                     float (&dots)[max_low_rank][padded]) {
  constexpr int rows = 4;
  const int begin = static_cast<int>(blockIdx.x) * a.head_size, end = begin + a.head_size;
  const int warps = static_cast<int>(blockDim.x) / 32;
  int piece = static_cast<int>(threadIdx.x) / 32;
  for (int p = 0; p < a.low_ranks; p++) {
    const WeightRows& w = a.low_rank[p].weight;
    const int first = begin / rows * rows, of_piece = rows * (32 / w.lanes);
    const int pieces = (end - first + of_piece - 1) / of_piece;
    for (; piece < pieces; piece += warps) {
      row_dots_of_warp<Weights::floats, rows>(w, a.low_rank[p].x, first + piece * of_piece, begin, end,
                                              [&](int row, float dot) { dots[p][row - begin] = dot; });
    }
    piece -= pieces;
  }
}

/// Makes the inputs that are products of the biases that arrived in their places.
template <class Version, int padded>
__device__ inline void apply_low_rank(const RecurrenceArguments<Version>& a,
                                      const float (&dots)[max_low_rank][padded],
                                      Arrived<Version, padded>& arrived) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Version::inputs; i++) {
    if (a.given[i].product < 0) continue;
#pragma unroll
    for (int q = 0; q < padded / 32; q++) {
      const int channel = lane + 32 * q;
      float& value = arrived.value[i][q];
      if (channel < a.head_size)
        value =
            activate(static_cast<Epilogue>(a.given[i].epilogue), value + dots[a.given[i].product][channel]);
    }
  }
}

// --- The kernels ---

/// The head's part of the model's vectors on its way to shared memory, by `threads` threads.
template <class Version, int padded, int threads>
class HeadVectors {
 public:
  __device__ void load(const RecurrenceArguments<Version>& a, int thread) {
#pragma unroll
    for (int i = 0; i < each; i++) {
      const int v = (thread + i * threads) / padded, channel = (thread + i * threads) % padded;
      values_[i] = 0;
      if (v < Version::vectors && channel < a.head_size)
        values_[i] = a.vectors[v][static_cast<int64_t>(blockIdx.x) * a.head_size + channel];
    }
  }
  __device__ void store(float (&vectors)[Version::vectors][padded], int thread) const {
#pragma unroll
    for (int i = 0; i < each; i++) {
      const int v = (thread + i * threads) / padded, channel = (thread + i * threads) % padded;
      if (v < Version::vectors) vectors[v][channel] = values_[i];
    }
  }

 private:
  static constexpr int each = (Version::vectors * padded + threads - 1) / threads;
  float values_[each];
};

/// Threads of the token warps.
template <class State>
constexpr int token_threads = 32 * slots_of<State::padded>;
/// The most threads of a block.
template <class State>
constexpr int max_threads = state_threads(State::columns) + token_threads<State>;

template <class Version, class State>
__global__ void __launch_bounds__(max_threads<State>, 1) chunk_kernel(RecurrenceArguments<Version> a) {
  constexpr int padded = State::padded, slots = slots_of<padded>;
  using Slot = Token<Version, padded>;
  using Channels = float[padded];
  SHARED_ARRAY(Slot, batches, 2 * slots);
  SHARED_ARRAY(Channels, vectors, Version::vectors);
  const int thread = static_cast<int>(threadIdx.x), slot = thread / 32;
  const bool has_token = slot < slots;
  State state(StatePlace(a.state, a.head_size, thread - token_threads<State>));
  if (has_token) {
    HeadVectors<Version, padded, token_threads<State>> own;
    own.load(a, thread);
    own.store(vectors, thread);
  } else {
    state.begin();
  }
  __syncthreads();

  const int steps = (a.tokens + slots - 1) / slots + 2;
  for (int step = 0; step < steps; step++) {
    Slot *fresh = batches + step % 2 * slots, *ready = batches + (step + 1) % 2 * slots;
    if (has_token) {
      const int token = step * slots + slot, done = token - 2 * slots;
      Arrived<Version, padded> arrived;
      if (token < a.tokens) load_token(a, token, arrived);
      if (done >= 0 && done < a.tokens) finish_token<Version, padded>(a, done, fresh[slot], vectors);
      if (token < a.tokens) Version::template prepare<padded>(a, arrived, vectors, fresh[slot]);
    } else {
      for (int i = 0, t = (step - 1) * slots; i < slots; i++, t++) {
        if (t >= 0 && t < a.tokens) state.for_columns([&](auto& part) { Version::step(part, ready[i]); });
      }
    }
    __syncthreads();
  }
  if (!has_token) state.end();
}

/// One token. All warps share the low-rank products; then the first prepares and finishes the token.
template <class Version, class State>
__global__ void __launch_bounds__(max_threads<State>, 1) token_kernel(RecurrenceArguments<Version> a) {
  constexpr int padded = State::padded;
  using Slot = Token<Version, padded>;
  using Channels = float[padded];
  SHARED_ARRAY(Slot, slot, 1);
  SHARED_ARRAY(Channels, vectors, Version::vectors);
  SHARED_ARRAY(Channels, dots, max_low_rank);
  const int thread = static_cast<int>(threadIdx.x);
  const bool has_state = thread >= token_threads<State>, has_token = thread < 32;
  State state(StatePlace(a.state, a.head_size, thread - token_threads<State>));
  Arrived<Version, padded> arrived;
  HeadVectors<Version, padded, token_threads<State>> own;
  // Everything is under way before the first is waited for, where there are registers for that.
  constexpr bool at_once = padded <= 64;
  if (!at_once) low_rank_dots(a, dots);
  if (has_token) load_token(a, 0, arrived);
  if (has_state) {
    state.begin();
  } else {
    own.load(a, thread);
  }
  if (at_once) low_rank_dots(a, dots);
  if (!has_state) own.store(vectors, thread);
  __syncthreads();
  if (has_token) {
    apply_low_rank(a, dots, arrived);
    Version::template prepare<padded>(a, arrived, vectors, slot[0]);
  }
  __syncthreads();
  if (has_state) {
    state.for_columns([&](auto& part) { Version::step(part, slot[0]); });
    state.end();
  }
  __syncthreads();
  if (has_token) finish_token<Version, padded>(a, 0, slot[0], vectors);
}

/// `inputs` and `vectors` in the order of the version's.
template <class Version>
RecurrenceArguments<Version> recurrence_arguments(const Tensor* const (&inputs)[Version::inputs],
                                                  const Tensor* const (&vectors)[Version::vectors],
                                                  const Tensor& state, const Tensor& out,
                                                  std::span<const Product> low_rank) {
  static_assert(std::has_unique_object_representations_v<RecurrenceArguments<Version>>,
                "nothing undefined goes to the device");
  RecurrenceArguments<Version> a{};
  for (int i = 0; i < Version::inputs; i++) a.inputs[i] = token_rows(*inputs[i]);
  for (int i = 0; i < Version::vectors; i++) a.vectors[i] = vectors[i]->f32();
  a.state = state.f32();
  a.out = out.f32();
  a.out_stride = out.stride;
  a.tokens = static_cast<int>(out.rows());
  a.head_size = static_cast<int>(state.sizes[1]);
  a.gated = inputs[Version::in_gate]->data != nullptr ? 1 : 0;
  for (auto& given : a.given) given.product = -1;
  for (const Product& p : low_rank) {
    int input = 0;
    while (input < Version::inputs && inputs[input]->data != p.out.data) input++;
    if (input == Version::inputs || a.low_ranks == max_low_rank || a.tokens != 1)
      throw Error("a low-rank product is none of this token's inputs of the recurrence");
    a.inputs[input] = has_bias(p.epilogue) ? token_rows(p.bias) : TokenRows{};
    a.given[input] = {a.low_ranks, static_cast<int>(p.epilogue)};
    a.low_rank[a.low_ranks++] = {weight_rows(p.weight), p.x.f32()};
  }
  return a;
}

template <class Version, class State>
void launch_recurrence(const RecurrenceArguments<Version>& a, int heads, cudaStream_t stream) {
  const int threads = state_threads(std::min(a.head_size, State::columns)) + token_threads<State>;
  launch(a.tokens == 1 ? token_kernel<Version, State> : chunk_kernel<Version, State>,
         static_cast<unsigned>(heads), static_cast<unsigned>(threads), 0, stream, a);
}

template <class Version>
void launch_recurrence(const RecurrenceArguments<Version>& a, const Tensor& state, cudaStream_t stream) {
  const int heads = static_cast<int>(state.sizes[0]);
  if (a.head_size <= 32) return launch_recurrence<Version, RegisterState<1>>(a, heads, stream);
  if (a.head_size <= 64) return launch_recurrence<Version, RegisterState<2>>(a, heads, stream);
  if (a.head_size <= 128) return launch_recurrence<Version, RegisterState<4>>(a, heads, stream);
  launch_recurrence<Version, MemoryState>(a, heads, stream);
}

}  // namespace rwkv::cuda
