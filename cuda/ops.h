// The operators of a CUDA device, with a queue of their own.
#pragma once

#include <functional>
#include <span>

#include "core/buffer.h"
#include "cuda/graph.h"
#include "cuda/kernels/kernels.h"
#include "cuda/library.h"
#include "cuda/pending.h"
#include "cuda/queue.h"
#include "cuda/staging.h"
#include "ops/ops.h"

namespace rwkv::cuda {

/// Everything is queued, but synchronize() and download(). The products of one token are launched when the
/// operator behind them is known, together with it where that is possible: a norm of the residual stream that
/// they add to, or a recurrence that they are inputs of; such inputs are then never written to memory.
class CudaOps final : public Ops {
 public:
  explicit CudaOps(int device);
  /// Finishes the work.
  ~CudaOps() override;
  CudaOps(const CudaOps&) = delete;
  CudaOps& operator=(const CudaOps&) = delete;

  [[nodiscard]] Layout blocks() const override { return Layout::cuda_blocks; }
  void synchronize() override { queue().synchronize(); }

  [[nodiscard]] int device() const { return queue_.device(); }
  /// Everything that was asked for so far is queued there, and the device is set.
  const Queue& queue();

 private:
  void do_reserve(const Limits& limits) override;
  void do_repeat(std::span<const void* const> key, const std::function<void()>& work) override;
  void do_upload(std::byte* to, const std::byte* host, size_t bytes) override;
  void do_download(std::byte* host, const std::byte* from, size_t bytes) override;
  void do_receive(std::byte* to, Ops& source, const std::byte* from, size_t bytes) override;
  void do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) override;
  void do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) override;
  void do_token_shift(const TokenShift& shift) override;
  void do_matmul(std::span<const Product> products) override;
  void do_wkv4(const Wkv4& wkv) override;
  void do_wkv5(const Wkv5& wkv) override;
  void do_wkv7(const Wkv7& wkv) override;

  /// Launches what is pending, with a tail.
  void launch_pending(const Tail& tail);
  /// The queue for a transfer, which cannot be repeated.
  const Queue& transfer_queue(const char* what);
  bool reaches(int device);

  Queue queue_;
  Staging staging_;
  Event sent_, arrived_;
  Buffer operands_, sums_, counters_;
  Workspace workspace_;
  FasterLibrary library_;
  Pending pending_;
  Records records_;
  bool repeating_ = false;
  int peer_ = -1;  // the device that was last asked for by reaches(), and the answer
  bool peer_reached_ = false;
};

}  // namespace rwkv::cuda
