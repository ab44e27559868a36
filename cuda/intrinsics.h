// What CUDA C++ has no words for: what a thread asks for and does not wait for, and the tensor cores. Each
// function has a twin in plain C++, for the emulated device and for devices that lack the instructions.
//
// Tiles in shared memory are rows of 16-byte chunks. Chunks change places within their row so that eight rows
// at the same chunk, which is what a tensor-core operand is read from, lie in different banks.
#pragma once

#include <cuda_runtime.h>

#include <cstring>

#include "core/dtype.h"
#include "cuda/kernels/widen.h"

namespace rwkv::cuda {

#ifdef __CUDA_ARCH__
constexpr bool has_async_copies = __CUDA_ARCH__ >= 800;
constexpr bool skips_what_is_not_there = false;
/// Whether the tensor cores multiply this type.
template <DType type>
constexpr bool has_tensor_cores = type == DType::f16 || (type == DType::bf16 && __CUDA_ARCH__ >= 800);
#else
constexpr bool has_async_copies = false;
constexpr bool skips_what_is_not_there = true;
template <DType type>
constexpr bool has_tensor_cores = false;
#endif

#ifdef __CUDACC__
__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#endif

/// Asks for the address's cache line to come to the second-level cache.
__device__ inline void prefetch(const void* address) {
#ifdef __CUDA_ARCH__
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
  static_cast<void>(address);
#endif
}

/// A thread's copies from global to shared memory, for which it does not wait. They make groups; a group is
/// done for this thread after a wait, for others after a barrier behind it.
class AsyncCopies {
 public:
  /// 16 bytes, aligned to 16.
  __device__ void copy(uint4* to, const void* from) {
#ifdef __CUDA_ARCH__
    if constexpr (has_async_copies) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
                   : "memory");
    } else {
      *to = *static_cast<const uint4*>(from);
    }
#else
    copies_[end_++ % capacity] = {to, nullptr, from, groups_};
#endif
  }

  /// 4 bytes, aligned to 4.
  __device__ void copy(unsigned* to, const float* from) {
#ifdef __CUDA_ARCH__
    if constexpr (has_async_copies) {
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
                   : "memory");
    } else {
      *to = __float_as_uint(*from);
    }
#else
    copies_[end_++ % capacity] = {nullptr, to, from, groups_};
#endif
  }

  /// Ends a group; it may have no copies.
  __device__ void commit() {
#ifdef __CUDA_ARCH__
    if constexpr (has_async_copies) asm volatile("cp.async.commit_group;" ::: "memory");
#else
    groups_++;
#endif
  }

  /// Until all groups are done but the last `pending`.
  template <int pending>
  __device__ void wait() {
#ifdef __CUDA_ARCH__
    if constexpr (has_async_copies) asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#else
    for (; begin_ < end_ && copies_[begin_ % capacity].group < groups_ - pending; begin_++) {
      const Copy& c = copies_[begin_ % capacity];
      if (c.chunk != nullptr) *c.chunk = *static_cast<const uint4*>(c.from);
      if (c.word != nullptr) *c.word = __float_as_uint(*static_cast<const float*>(c.from));
    }
#endif
  }

#ifndef __CUDA_ARCH__
 private:
  // The emulated device copies when it is waited for, as late as a device may.
  struct Copy {
    uint4* chunk;
    unsigned* word;
    const void* from;
    int group;
  };
  static constexpr int capacity = 64;  // copies under way at once
  Copy copies_[capacity];
  int begin_ = 0, end_ = 0, groups_ = 0;
#endif
};

// --- Products of tiles ---

/// The place, in chunks, of a chunk of a tile whose rows have `chunks` (a power of two above 1).
template <int chunks>
__device__ inline int chunk_place(int row, int chunk) {
  constexpr int rows_of_all_banks = chunks < 8 ? 8 / chunks : 1, mask = chunks < 8 ? chunks - 1 : 7;
  return row * chunks + (chunk ^ (row / rows_of_all_banks & mask));
}

/// A step of a product takes this much of each row along the inputs.
constexpr int step_chunks = 4;
template <DType type>
constexpr int step_inputs = step_chunks* chunk_weights<type>;

/// The first or second 16-bit number of a word.
template <DType type>
__device__ inline float number_of(unsigned word, int i) {
  if constexpr (type == DType::f16) return half_bits_to_float(word >> (16 * i));
  return i == 0 ? low_bf16(word) : high_bf16(word);
}

/// Four matrices of 8 x 8 16-bit numbers. Each lane brings the address of a row: lane l of row l % 8 of
/// matrix l / 8; and gets of each matrix numbers 2 (l % 4) and + 1 of row l / 4, or of column l / 4 when
/// `transposed`.
template <bool transposed>
__device__ inline void load_matrices(unsigned (&out)[4], const uint4* row) {
#ifdef __CUDA_ARCH__
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
#else
  const int lane = static_cast<int>(threadIdx.x) % 32, major = lane / 4, minor = lane % 4 * 2;
  const auto word_of = [&](int from, int word) {
    // As a difference, since a warp exchanges numbers; rows are in one block's shared memory.
    const auto away = __shfl_sync(~0u, reinterpret_cast<unsigned long long>(row), from) -
                      reinterpret_cast<unsigned long long>(row);
    return reinterpret_cast<const unsigned*>(reinterpret_cast<const char*>(row) +
                                             static_cast<long long>(away))[word];
  };
  for (int i = 0; i < 4; i++) {
    if (transposed) {
      const unsigned first = word_of(8 * i + minor, major / 2) >> major % 2 * 16;
      const unsigned second = word_of(8 * i + minor + 1, major / 2) >> major % 2 * 16;
      out[i] = (first & 0xffffu) | second << 16;
    } else {
      out[i] = word_of(8 * i + major, minor / 2);
    }
  }
#endif
}

/// sum += a b, 16 x 16 times 16 x 8.
template <DType type>
__device__ inline void multiply_matrices(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (type == DType::bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#elif defined(__CUDA_ARCH__)
#pragma unroll
  for (int k = 0; k < 2; k++) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
  }
#else
  // Where the instruction has the numbers: a[row][k] in lane row % 8 * 4 + k % 8 / 2, b[k][column] in lane
  // column * 4 + k % 8 / 2, sum[row][column] as multiply_step says.
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int k = 0; k < 16; k++) {
    float left[2], right[2];
    for (int i = 0; i < 2; i++) {
      left[i] = number_of<type>(__shfl_sync(~0u, a[k / 8 * 2 + i], lane / 4 * 4 + k % 8 / 2), k % 2);
      right[i] = number_of<type>(__shfl_sync(~0u, b[k / 8], (lane % 4 * 2 + i) * 4 + k % 8 / 2), k % 2);
    }
    for (int i = 0; i < 4; i++) sum[i] += left[i / 2] * right[i % 2];
  }
#endif
}

/// multiply_step by tensor-core instructions.
template <DType type, bool across, int weight_chunks, int m, int n>
__device__ inline void multiply_on_tensor_cores(float (&sums)[m][n][4], const uint4* weights,
                                                int first_output, const uint4* x, int first_token,
                                                int tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  unsigned b[n][2][2];
#pragma unroll
  for (int j = 0; j < n; j++) {
    unsigned pairs[4];
    load_matrices<false>(pairs, x + chunk_place<step_chunks>(first_token + 8 * j + lane % 8, lane / 8));
#pragma unroll
    for (int i = 0; i < 4; i++) b[j][i / 2][i % 2] = pairs[i];
  }
#pragma unroll
  for (int k = 0; k < 2; k++) {
#pragma unroll
    for (int i = 0; i < m; i++) {
      unsigned a[4];
      const int output = first_output + 16 * i;
      if constexpr (across) {
        const int input = 16 * k + lane / 16 * 8 + lane % 8;
        load_matrices<true>(a, weights + chunk_place<weight_chunks>(input, output / 8 + lane / 8 % 2));
      } else {
        load_matrices<false>(a, weights + chunk_place<weight_chunks>(output + lane % 16, 2 * k + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < n; j++) {
        // Of few tokens only; many may waste some.
        if (n <= 2 && first_token + 8 * j >= tokens) break;
        multiply_matrices<type>(sums[i][j], a, b[j][k]);
      }
    }
  }
}

/// Numbers along the inputs that a lane takes at once: registers are few on a device.
#ifdef __CUDA_ARCH__
template <DType type>
constexpr int lane_numbers = 2;
#else
template <DType type>
constexpr int lane_numbers = chunk_weights<type>;
#endif

/// sum + a b. The emulated device does it in the way that its host is quick at.
template <int count>
__device__ inline float add_product(float sum, const float (&a)[count], const float (&b)[count]) {
#ifdef __CUDA_ARCH__
#pragma unroll
  for (int i = 0; i < count; i++) sum = fmaf(a[i], b[i], sum);
  return sum;
#else
  float part[4];
  for (int i = 0; i < 4; i++) part[i] = a[i] * b[i];
  for (int j = 4; j < count; j += 4) {
    for (int i = 0; i < 4; i++) part[i] += a[i + j] * b[i + j];
  }
  return sum + ((part[0] + part[1]) + (part[2] + part[3]));
#endif
}

/// fp16 numbers, in the low halves of words, all at once. The product is exact, for subnormal numbers too;
/// what is not finite becomes 65536 and more by it.
__device__ inline void widen_halves(const unsigned (&bits)[8], float (&out)[8]) {
  unsigned words[8];
  for (int i = 0; i < 8; i++) words[i] = (bits[i] & 0x7fffu) << 13;
  memcpy(out, words, sizeof out);
  for (float& f : out) f *= 0x1p112f;
  memcpy(words, out, sizeof out);
  for (int i = 0; i < 8; i++) {
    words[i] |= (bits[i] & 0x8000u) << 16 | (words[i] >= 0x47800000u ? 0x7f800000u : 0u);
  }
  memcpy(out, words, sizeof out);
}

/// Numbers k and on of a row of a tile with step_chunks in a row; k is a multiple of their count.
template <DType type, int count>
__device__ inline void load_along(float (&out)[count], const uint4* tile, int row, int k) {
  constexpr int in_chunk = chunk_weights<type>;
  const uint4* chunk = tile + chunk_place<step_chunks>(row, k / in_chunk);
  if constexpr (count == in_chunk && type == DType::f16) {
    const unsigned words[4] = {chunk->x, chunk->y, chunk->z, chunk->w};
    unsigned bits[8];
    for (int i = 0; i < 4; i++) {
      bits[2 * i] = words[i] & 0xffffu;
      bits[2 * i + 1] = words[i] >> 16;
    }
    widen_halves(bits, out);
  } else if constexpr (count == in_chunk) {
    widen<type>(*chunk, out);
  } else if constexpr (type == DType::f32) {
    const uint2 words = reinterpret_cast<const uint2*>(chunk)[k % in_chunk / 2];
    out[0] = __uint_as_float(words.x);
    out[1] = __uint_as_float(words.y);
  } else {
    const unsigned word = reinterpret_cast<const unsigned*>(chunk)[k % in_chunk / 2];
    out[0] = number_of<type>(word, 0);
    out[1] = number_of<type>(word, 1);
  }
}

/// Number `column` of rows k and on.
template <DType type, int chunks, int count>
__device__ inline void load_across(float (&out)[count], const uint4* tile, int column, int k) {
  constexpr int in_chunk = chunk_weights<type>, in_word = in_chunk / 4;
  unsigned words[count];
#pragma unroll
  for (int i = 0; i < count; i++) {
    const uint4* chunk = tile + chunk_place<chunks>(k + i, column / in_chunk);
    words[i] = reinterpret_cast<const unsigned*>(chunk)[column % in_chunk / in_word];
    if constexpr (in_word == 2) words[i] >>= column % 2 * 16;
  }
  if constexpr (count == 8 && type == DType::f16) {
    widen_halves(words, out);
  } else {
#pragma unroll
    for (int i = 0; i < count; i++)
      out[i] = type == DType::f32 ? __uint_as_float(words[i]) : number_of<type>(words[i], 0);
  }
}

template <DType type, bool across, int weight_chunks, int m, int n>
__device__ inline void multiply_by_lanes(float (&sums)[m][n][4], const uint4* weights, int first_output,
                                         int outputs, const uint4* x, int first_token, int tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int output = first_output + lane / 4, token = first_token + lane % 4 * 2;
  for (int k = 0; k < step_inputs<type>; k += lane_numbers<type>) {
    float b[n][2][lane_numbers<type>];
#pragma unroll
    for (int j = 0; j < 2 * n; j++) {
      const int row = token + j / 2 * 8 + j % 2;
      if (!skips_what_is_not_there || row < tokens) load_along<type>(b[j / 2][j % 2], x, row, k);
    }
#pragma unroll
    for (int i = 0; i < 2 * m; i++) {
      const int row = output + i * 8;
      if (skips_what_is_not_there && row >= outputs) break;
      float a[lane_numbers<type>];
      if constexpr (across) {
        load_across<type, weight_chunks>(a, weights, row, k);
      } else {
        load_along<type>(a, weights, row, k);
      }
#pragma unroll
      for (int j = 0; j < 2 * n; j++) {
        if (skips_what_is_not_there && token + j / 2 * 8 + j % 2 >= tokens) break;
        float& sum = sums[i / 2][j / 2][i % 2 * 2 + j % 2];
        sum = add_product(sum, a, b[j / 2][j % 2]);
      }
    }
  }
}

/// One step of a warp's product of m * 16 outputs by n * 8 tokens: sums += weights x, over step_inputs. x is
/// a tile of [tokens][inputs]; weights one of [outputs][inputs] or, `across`, of [inputs][outputs]. A lane
/// has, of each 16 x 8, outputs lane / 4 and + 8 of tokens lane % 4 * 2 and + 1:
///   sums[..][..][h * 2 + c] is output lane / 4 + 8 h, token lane % 4 * 2 + c
/// Sums of outputs and tokens that the tiles don't have (from `outputs` and `tokens` on) may be anything.
template <DType type, bool across, int weight_chunks, int m, int n>
__device__ inline void multiply_step(float (&sums)[m][n][4], const uint4* weights, int first_output,
                                     int outputs, const uint4* x, int first_token, int tokens) {
#ifdef __CUDA_ARCH__
  if constexpr (has_tensor_cores<type>) {
    multiply_on_tensor_cores<type, across, weight_chunks>(sums, weights, first_output, x, first_token,
                                                          tokens);
    return;
  }
#endif
  multiply_by_lanes<type, across, weight_chunks>(sums, weights, first_output, outputs, x, first_token,
                                                 tokens);
}

}  // namespace rwkv::cuda
