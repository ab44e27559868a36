// The recurrence of RWKV-5 and 6.
//
// For a token and a head of N channels: 5 N^2 operations on the state (two multiply-adds and a product for
// each element), which stays in registers, so that a chunk of T tokens moves 8 N^2 bytes of state and 6 * 4 N
// bytes for each token. The limit is the multiprocessor: 3 N^2 / 128 cycles of arithmetic, and beside it as
// many of shared memory (a number of it serves four columns) and 0.75 N of shuffles: 144 cycles for N = 64,
// as long as there are heads for all multiprocessors. One token is bound by memory: its 8 N^2 bytes.
// What `first` adds is the same for all keys of a value channel but for v: sum(r * first * k) * v.
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/recurrence.h"

namespace rwkv::cuda {
namespace {

struct Version5 {
  enum Input { in_r, in_decay, in_k, in_v, in_gate, inputs };
  enum Vector { first, weight, bias, vectors };
  enum Row { row_r, row_decay, row_key, row_value, row_gate, row_y, rows };
  static constexpr bool bonus_first = true;

  template <int padded>
  __device__ static void prepare(const RecurrenceArguments<Version5>&, const Arrived<Version5, padded>& in,
                                 const float (&vector)[vectors][padded], Token<Version5, padded>& t) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float bonus = 0;
#pragma unroll
    for (int q = 0; q < padded / 32; q++) {
      const int channel = lane + 32 * q;
      bonus = fmaf(in.value[in_r][q] * vector[first][channel], in.value[in_k][q], bonus);
      t.row[row_r][channel] = in.value[in_r][q];
      t.row[row_decay][channel] = in.value[in_decay][q];
      t.row[row_key][channel] = in.value[in_k][q];
      t.row[row_value][channel] = in.value[in_v][q];
      t.row[row_gate][channel] = in.value[in_gate][q];
    }
    t.bonus[lane] = warp_sum(bonus);
  }

  template <class State>
  __device__ static void step(State& state, Token<Version5, State::padded>& t) {
    const int first_key = state.place.key, column = state.place.column;
    const float4 v = get4(t.row[row_value] + column);
    float4 sum = make_float4(0, 0, 0, 0), s[4];
#pragma unroll State::unrolled
    for (int g = 0; g < State::groups; g++) {
      const int at = g * 32 + first_key;
      state.get(g, s);
      add_keys(sum, get4(t.row[row_r] + at), s);
      scale_keys(s, get4(t.row[row_decay] + at));
      add_outer(s, get4(t.row[row_key] + at), v);
      state.put(g, s);
    }
    sum = sum_of_lanes(sum);
    if (first_key == 0) *reinterpret_cast<float4*>(t.row[row_y] + column) = sum;
  }
};

}  // namespace

void wkv5(const Wkv5& w, std::span<const Product> low_rank, cudaStream_t stream) {
  const Tensor* inputs[] = {&w.r, &w.decay, &w.k, &w.v, &w.gate};
  const Tensor* vectors[] = {&w.first, &w.norm.weight, &w.norm.bias};
  launch_recurrence(recurrence_arguments<Version5>(inputs, vectors, w.state, w.out, low_rank), w.state,
                    stream);
}

}  // namespace rwkv::cuda
