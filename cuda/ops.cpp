#include "cuda/ops.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/checked.h"
#include "core/error.h"
#include "cuda/check.h"
#include "cuda/memory.h"
#include "ops/layout.h"

namespace rwkv::cuda {

CudaOps::CudaOps(int device)
    : queue_(device),
      staging_(device),
      sent_(device),
      arrived_(device),
      counters_(allocate(device, max_counters * sizeof(unsigned))),
      records_(queue_) {
  workspace_.counters = reinterpret_cast<unsigned*>(counters_.data());
}

CudaOps::~CudaOps() {
  try {
    synchronize();
  } catch (const Error&) {  // nobody is left to be told
  }
}

const Queue& CudaOps::queue() {
  set_device(device());
  launch_pending({});
  return queue_;
}

const Queue& CudaOps::transfer_queue(const char* what) {
  if (repeating_) throw Error(fmt::format("{}: cannot be part of repeated work", what));
  return queue();
}

// --- Memory ---
void CudaOps::do_reserve(const Limits& limits) {
  staging_.reserve(std::min(static_cast<size_t>(limits.transfer_bytes), Staging::largest_piece));
  const size_t operands = operand_bytes(limits), sums = sum_bytes(limits);
  if (operands <= workspace_.operand_bytes && sums <= workspace_.sum_bytes) return;
  records_.clear();  // they know the addresses of the old ones
  if (operands > workspace_.operand_bytes) {
    operands_ = allocate(device(), operands);
    workspace_.operands = operands_.data();
    workspace_.operand_bytes = operands;
  }
  if (sums > workspace_.sum_bytes) {
    sums_ = allocate(device(), sums);
    workspace_.sums = reinterpret_cast<float*>(sums_.data());
    workspace_.sum_bytes = sums;
  }
  library_.look(queue_, limits, workspace_);
}

// --- Transfers ---
void CudaOps::do_upload(std::byte* to, const std::byte* host, size_t bytes) {
  staging_.upload(transfer_queue("upload"), to, host, bytes);
}

void CudaOps::do_download(std::byte* host, const std::byte* from, size_t bytes) {
  staging_.download(transfer_queue("download"), host, from, bytes);
}

bool CudaOps::reaches(int device) {
  if (device == peer_) return peer_reached_;
  peer_ = device;
  int can = 0;
  check(cudaDeviceCanAccessPeer(&can, queue_.device(), device), "ask for the other device");
  if (can != 0) {
    const cudaError_t result = cudaDeviceEnablePeerAccess(device, 0);
    can = result == cudaSuccess || result == cudaErrorPeerAccessAlreadyEnabled ? 1 : 0;
    cudaGetLastError();
  }
  return peer_reached_ = can != 0;
}

// Both queues wait: this one until the tensor is there, the other one, which may change the tensor next,
// until it is read.
void CudaOps::do_receive(std::byte* to, Ops& source, const std::byte* from, size_t bytes) {
  auto* other = dynamic_cast<CudaOps*>(&source);
  if (other == nullptr) throw Error("receive: the tensor must be another CUDA device's");
  const Queue& theirs = other->transfer_queue("receive");
  const Queue& ours = transfer_queue("receive");
  if (other == this) return ours.copy(to, from, bytes, cudaMemcpyDeviceToDevice);
  if (other->device() != device() && !reaches(other->device())) {
    return staging_.relay(ours, to, theirs, other->sent_, from, bytes);
  }
  theirs.record(other->sent_);
  ours.wait(other->sent_);
  if (other->device() == device()) {
    ours.copy(to, from, bytes, cudaMemcpyDeviceToDevice);
  } else if (bytes > 0) {
    check(cudaMemcpyPeerAsync(to, device(), from, other->device(), bytes, ours.stream()),
          "copy from another device");
  }
  ours.record(arrived_);
  theirs.wait(arrived_);
}

// Rows become fp32 in pinned pieces, as many as fit and follow each other in the output.
void CudaOps::do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) {
  const Queue& queue = transfer_queue("embed");
  const auto row_bytes = static_cast<size_t>(out.cols()) * sizeof(float);
  const int64_t table_row = table.stride * static_cast<int64_t>(size_of(table.dtype));
  if (tokens.empty() || row_bytes == 0) return;
  staging_.reserve(row_bytes);
  const bool dense = out.stride == out.cols();
  const size_t rows = dense ? staging_.piece_bytes() / row_bytes : 1;
  for (size_t at = 0; at < tokens.size(); at += rows) {
    const size_t count = std::min(rows, tokens.size() - at);
    Staging::Piece& piece = staging_.next();
    for (size_t i = 0; i < count; i++) {
      to_f32(table.data + tokens[at + i] * table_row, table.dtype, out.cols(),
             reinterpret_cast<float*>(piece.data + i * row_bytes));
    }
    auto* to = reinterpret_cast<std::byte*>(out.row(static_cast<int64_t>(at)));
    Staging::send(queue, to, piece, count * row_bytes);
  }
}

// --- Operators ---
void CudaOps::launch_pending(const Tail& tail) {
  if (!pending_.empty()) cuda::matvec(pending_.take(), tail, workspace_, queue_.stream());
}

void CudaOps::do_repeat(std::span<const void* const> key, const std::function<void()>& work) {
  if (repeating_) return work();
  queue();
  repeating_ = true;
  struct End {
    bool& repeating;
    ~End() { repeating = false; }
  } end{repeating_};
  records_.run(key, [this, &work] {
    pending_.take();  // a recording that failed may have left some
    work();
    queue();
  });
}

void CudaOps::do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) {
  set_device(device());
  if (pending_.end_in(x)) {
    const Tail::LayerNorm tail{out, x, norm};
    return launch_pending({.norm = &tail});
  }
  if (x.elements() > 0) cuda::layer_norm(out, x, norm, queue().stream());
}

void CudaOps::do_token_shift(const TokenShift& shift) {
  set_device(device());
  if (shift.mixes.size() > max_mixes) {
    throw Error(
        fmt::format("token_shift: {} mixes; a CUDA device takes at most {}", shift.mixes.size(), max_mixes));
  }
  if (pending_.end_in(shift.x)) return launch_pending({.shift = &shift});
  if (shift.x.rows() == 0) {
    return queue().copy(shift.normalized.data, shift.state.data, static_cast<size_t>(shift.x.cols()) * 4,
                        cudaMemcpyDeviceToDevice);
  }
  cuda::token_shift(shift, queue().stream());
}

void CudaOps::do_matmul(std::span<const Product> products) {
  if (products.empty() || products[0].x.rows() == 0) return;
  Limits limits{.tokens = products[0].x.rows()};
  for (const Product& p : products) {
    limits.product_inputs += round_up(p.x.cols(), 64);
    limits.product_outputs = std::max(limits.product_outputs, p.out.cols());
  }
  do_reserve(limits);
  const Queue& behind = queue();
  if (Pending::can_keep(products)) return pending_.keep(products);
  while (!products.empty()) {
    const auto some = products.first(std::min<size_t>(products.size(), max_products));
    products = products.subspan(some.size());
    if (some[0].x.rows() == 1) {
      cuda::matvec(some, {}, workspace_, behind.stream());
    } else {
      cuda::matmul(some, workspace_, behind.stream());
    }
  }
}

void CudaOps::do_wkv4(const Wkv4& wkv) {
  if (wkv.r.elements() > 0) cuda::wkv4(wkv, queue().stream());
}

void CudaOps::do_wkv5(const Wkv5& wkv) {
  set_device(device());
  std::span<const Product> low_rank;
  if (pending_.feed(wkv)) low_rank = pending_.take();
  if (wkv.r.elements() > 0) cuda::wkv5(wkv, low_rank, queue().stream());
}

void CudaOps::do_wkv7(const Wkv7& wkv) {
  set_device(device());
  std::span<const Product> low_rank;
  if (pending_.feed(wkv)) low_rank = pending_.take();
  if (wkv.r.elements() > 0) cuda::wkv7(wkv, low_rank, queue().stream());
}

}  // namespace rwkv::cuda
