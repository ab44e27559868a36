// What the kernels offer to cuda/ops.cpp: one function for each operator, which queues its launches in a
// stream. Arguments are those of ops/ops.h, checked, in device memory. Activations are aligned to 4 bytes
// only, weights to 64. Nothing is allocated and nothing waited for.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <span>

#include "cuda/workspace.h"
#include "ops/ops.h"

namespace rwkv::cuda {

/// The most products of one launch, and mixes of one token shift.
constexpr int max_products = 8;
constexpr int max_mixes = 6;

/// y = x W^T for a long chunk and fp16 or bf16 weights.
struct LibraryProduct {
  DType dtype;
  const std::byte *weight, *x;  ///< [outputs][weight_stride], [tokens][x_stride]
  float* y;                     ///< [tokens][outputs]
  int outputs, tokens, inputs;  ///< inputs with padding that is zero on both sides
  int weight_stride, x_stride;  ///< in elements
};

/// Who computes such products instead of matmul's own kernels: cuda/library.h.
class ProductLibrary {
 public:
  virtual ~ProductLibrary() = default;
  /// Queues it, in the queue that this belongs to. False, and nothing is queued, when it cannot.
  virtual bool multiply(const LibraryProduct& product) = 0;
};
/// Tokens of a chunk from which matmul asks a library.
constexpr int library_tokens = 256;

/// Device memory that operators need beside their operands; one for each queue. cuda/workspace.h tells sizes.
struct Workspace {
  std::byte* operands = nullptr;  ///< matmul: inputs of products as tensor cores read them
  float* sums = nullptr;          ///< matvec: partial sums of an input_rows product
  unsigned* counters = nullptr;   ///< max_counters; zero whenever no kernel runs
  size_t operand_bytes = 0, sum_bytes = 0;
  ProductLibrary* library = nullptr;  ///< where there is one that is faster
  float* library_sums = nullptr;      ///< what it computes, before the epilogue
  size_t library_sum_bytes = 0;
  int64_t two_part_weights = small_matrix;  ///< matmul: up to so many, fp16 inputs have two parts
};

/// What the last block of a matvec to arrive does with its output, which then costs no launch of its own: at
/// most one of the two.
struct Tail {
  const TokenShift* shift = nullptr;  ///< of one token; x is the product's output
  struct LayerNorm {
    Tensor out, x;
    Norm norm;
  };
  const LayerNorm* norm = nullptr;
};

/// One token. Products in cuda_blocks are one launch together; one in input_rows is a launch of its own, with
/// no other product beside it when there is a tail.
void matvec(std::span<const Product> products, const Tail& tail, const Workspace& workspace,
            cudaStream_t stream);

/// Two tokens or more.
void matmul(std::span<const Product> products, const Workspace& workspace, cudaStream_t stream);

/// A few kilobytes (whole words) of pinned host memory, read by a kernel over the link: a copy would queue up
/// behind the weights that the device's copy engine is fetching.
void read_pinned(std::byte* to, const std::byte* pinned, size_t bytes, cudaStream_t stream);

void layer_norm(const Tensor& out, const Tensor& x, const Norm& norm, cudaStream_t stream);
void token_shift(const TokenShift& shift, cudaStream_t stream);

void wkv4(const Wkv4& wkv, cudaStream_t stream);
/// `low_rank`: products of one token whose outputs are inputs of `wkv`: each head computes its own channels
/// of them and does not read the outputs' memory. Their weights are in cuda_blocks and no integers; at most
/// 4, one for wkv5 (the decay).
void wkv5(const Wkv5& wkv, std::span<const Product> low_rank, cudaStream_t stream);
void wkv7(const Wkv7& wkv, std::span<const Product> low_rank, cudaStream_t stream);

}  // namespace rwkv::cuda
