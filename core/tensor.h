// A tensor is a view: it owns nothing, copies nothing and allocates nothing.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace rwkv {

/// How the elements of a tensor lie in memory. The matrix layouts are defined in ops/layout.h.
enum class Layout : uint8_t {
  plain,        ///< row after row, the last index fastest
  cpu_blocks,   ///< matrix [outputs, inputs] in blocks of 16 outputs, inputs interleaved
  cpu_coded,    ///< cpu_blocks of bf16 in 12 bits a weight, without loss
  cuda_blocks,  ///< matrix [outputs, inputs] in blocks of 16 outputs, one padded row for each
  input_rows,   ///< matrix [outputs, inputs] stored as one row of outputs per input
};

/// "cpu_blocks" and so on.
constexpr std::string_view name_of(Layout layout) {
  switch (layout) {
    case Layout::cpu_blocks:
      return "cpu_blocks";
    case Layout::cpu_coded:
      return "cpu_coded";
    case Layout::cuda_blocks:
      return "cuda_blocks";
    case Layout::input_rows:
      return "input_rows";
    default:
      return "plain";
  }
}

/// Rank 1 to 4. `sizes` are the logical sizes; a matrix layout may pad them in memory. In the plain layout,
/// consecutive indices of the first dimension are `stride` elements apart and everything else is dense, so a
/// block of columns of a matrix is a view as well. `device` numbers the device whose memory `data` points to;
/// 0 is the host. `exact`, of a bf16 matrix on the CPU: its products round no input, as with fp32 weights.
struct Tensor {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  Layout layout = Layout::plain;
  uint8_t rank = 0;
  uint8_t device = 0;
  std::array<int64_t, 4> sizes{};
  int64_t stride = 0;
  bool exact = false;

  [[nodiscard]] int64_t rows() const { return sizes[0]; }
  [[nodiscard]] int64_t cols() const { return rank > 1 ? sizes[1] : 1; }
  [[nodiscard]] int64_t elements() const {
    int64_t n = 1;
    for (uint8_t i = 0; i < rank; i++) n *= sizes[i];
    return n;
  }
  [[nodiscard]] explicit operator bool() const { return data != nullptr; }

  // Always inlined: kernels are compiled for several instruction sets, and a copy out of line of one of them
  // would serve all.
  [[nodiscard, gnu::always_inline]] float* f32() const {
    assert(dtype == DType::f32);
    return reinterpret_cast<float*>(data);
  }
  /// Row `i` of an fp32 tensor in the plain layout.
  [[nodiscard, gnu::always_inline]] float* row(int64_t i) const { return f32() + i * stride; }

  /// Rows [begin, begin + count).
  [[nodiscard]] Tensor slice_rows(int64_t begin, int64_t count) const {
    assert(layout == Layout::plain && begin >= 0 && count >= 0 && begin + count <= sizes[0]);
    Tensor t = *this;
    t.data += begin * stride * static_cast<int64_t>(size_of(dtype));
    t.sizes[0] = count;
    return t;
  }
  /// Columns [begin, begin + count) of a matrix.
  [[nodiscard]] Tensor slice_cols(int64_t begin, int64_t count) const {
    assert(layout == Layout::plain && rank == 2 && begin >= 0 && count >= 0 && begin + count <= sizes[1]);
    Tensor t = *this;
    t.data += begin * static_cast<int64_t>(size_of(dtype));
    t.sizes[1] = count;
    return t;
  }
};

/// Dense plain views.
inline Tensor vector_view(const void* data, DType dtype, int64_t size) {
  auto* bytes = static_cast<std::byte*>(const_cast<void*>(data));
  return {bytes, dtype, Layout::plain, 1, 0, {size}, 1};
}
inline Tensor matrix_view(const void* data, DType dtype, int64_t rows, int64_t cols) {
  auto* bytes = static_cast<std::byte*>(const_cast<void*>(data));
  return {bytes, dtype, Layout::plain, 2, 0, {rows, cols}, cols};
}

}  // namespace rwkv
