// RWKV-7's recurrence.
//
// For a token and a head of N channels: 9 N^2 operations on the state (four multiply-adds and a product for
// each element), which stays in registers, so that a chunk of T tokens moves 8 N^2 bytes of state and 9 * 4 N
// bytes for each token. The limit is the multiprocessor: 5 N^2 / 128 cycles of arithmetic, and beside it as
// many of shared memory (a number of it serves four columns) and 1.5 N of shuffles: 256 cycles for N = 64, as
// long as there are heads for all multiprocessors. One token is bound by memory: its 8 N^2 bytes, and 2 N for
// each unit of rank of 16-bit low-rank matrices.
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/recurrence.h"

namespace rwkv::cuda {
namespace {

struct Version7 {
  enum Input { in_r, in_decay, in_k, in_v, in_a, in_v_first, in_v_gate, in_gate, inputs };
  enum Vector { k_k, k_a, r_k, weight, bias, vectors };
  enum Row { row_r, row_decay, row_removal, row_kka, row_key, row_value, row_gate, row_y, rows };
  static constexpr bool bonus_first = false;

  /// removal = -kk, kka = kk * a.
  template <int padded>
  __device__ static void prepare(const RecurrenceArguments<Version7>& a, const Arrived<Version7, padded>& in,
                                 const float (&vector)[vectors][padded], Token<Version7, padded>& t) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float kk[padded / 32], squares = 0, bonus = 0;
#pragma unroll
    for (int q = 0; q < padded / 32; q++) {
      const int channel = lane + 32 * q;
      const float k = in.value[in_k][q], v = in.value[in_v][q];
      kk[q] = k * vector[k_k][channel];
      squares = fmaf(kk[q], kk[q], squares);
      const float key = k * fmaf(in.value[in_a][q] - 1.0f, vector[k_a][channel], 1.0f);
      bonus = fmaf(in.value[in_r][q] * key, vector[r_k][channel], bonus);
      t.row[row_r][channel] = in.value[in_r][q];
      t.row[row_decay][channel] = in.value[in_decay][q];
      t.row[row_key][channel] = key;
      t.row[row_value][channel] = a.inputs[in_v_first].data == nullptr
                                      ? v
                                      : fmaf(in.value[in_v_first][q] - v, in.value[in_v_gate][q], v);
      t.row[row_gate][channel] = in.value[in_gate][q];
    }
    const float length = sqrtf(warp_sum(squares));
    const float scale = 1.0f / (length < 1e-12f ? 1e-12f : length);
    t.bonus[lane] = warp_sum(bonus);
#pragma unroll
    for (int q = 0; q < padded / 32; q++) {
      const float unit = kk[q] * scale;
      t.row[row_removal][lane + 32 * q] = -unit;
      t.row[row_kka][lane + 32 * q] = unit * in.value[in_a][q];
    }
  }

  template <class State>
  __device__ static void step(State& state, Token<Version7, State::padded>& t) {
    const int first_key = state.place.key, column = state.place.column;
    float4 sa = make_float4(0, 0, 0, 0), sum = sa, s[4];
#pragma unroll State::unrolled
    for (int g = 0; g < State::groups; g++) {
      state.get(g, s);
      add_keys(sa, get4(t.row[row_removal] + g * 32 + first_key), s);
    }
    sa = sum_of_lanes(sa);
    const float4 v = get4(t.row[row_value] + column);
#pragma unroll State::unrolled
    for (int g = 0; g < State::groups; g++) {
      const int at = g * 32 + first_key;
      state.get(g, s);
      scale_keys(s, get4(t.row[row_decay] + at));
      add_outer(s, get4(t.row[row_kka] + at), sa);
      add_outer(s, get4(t.row[row_key] + at), v);
      add_keys(sum, get4(t.row[row_r] + at), s);
      state.put(g, s);
    }
    sum = sum_of_lanes(sum);
    if (first_key == 0) *reinterpret_cast<float4*>(t.row[row_y] + column) = sum;
  }
};

}  // namespace

void wkv7(const Wkv7& w, std::span<const Product> low_rank, cudaStream_t stream) {
  const Tensor* inputs[] = {&w.r, &w.decay, &w.k, &w.v, &w.a, &w.v_first, &w.v_gate, &w.g};
  const Tensor* vectors[] = {&w.k_k, &w.k_a, &w.r_k, &w.norm.weight, &w.norm.bias};
  launch_recurrence(recurrence_arguments<Version7>(inputs, vectors, w.state, w.out, low_rank), w.state,
                    stream);
}

}  // namespace rwkv::cuda
