#include "cpu/cpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "core/memory.h"
#include "core/processors.h"
#include "core/shared_work.h"
#include "core/thread_pool.h"
#include "cpu/features.h"
#include "cpu/kernels/kernels.h"
#include "cpu/products.h"
#include "ops/layout.h"

namespace rwkv::cpu {
namespace {

class CpuOps final : public Ops {
 public:
  CpuOps(int threads, const Kernels& kernels)
      : kernels_(kernels), pool_(threads), work_(pool_.threads()), products_(kernels, pool_, work_) {}

  [[nodiscard]] int threads() const { return pool_.threads(); }
  [[nodiscard]] Layout blocks() const override { return Layout::cpu_blocks; }
  // Every operator is done when it returns.
  void synchronize() override {}

 private:
  // Nothing may be copied from nowhere, which std::memcpy does not allow.
  void do_upload(std::byte* to, const std::byte* host, size_t bytes) override {
    std::copy_n(host, bytes, to);
  }
  void do_download(std::byte* host, const std::byte* from, size_t bytes) override {
    std::copy_n(from, bytes, host);
  }
  void do_receive(std::byte* to, Ops& source, const std::byte* from, size_t bytes) override {
    source.synchronize();
    std::copy_n(from, bytes, to);
  }
  void do_reserve(const Limits& limits) override { products_.reserve(limits); }
  void do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) override;
  void do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) override;
  void do_token_shift(const TokenShift& shift) override;
  void do_matmul(std::span<const Product> products) override { products_.multiply(products); }
  void do_wkv4(const Wkv4& wkv) override;
  void do_wkv5(const Wkv5& wkv) override;
  void do_wkv7(const Wkv7& wkv) override;

  // function(Range) for parts of [0, count) on all threads, cut at multiples of grain; alone when there is
  // little work.
  template <class Function>
  void parallel(int64_t count, int64_t grain, int64_t work_per_item, Function function);

  [[nodiscard]] int64_t grain_of_state(int64_t tokens, int64_t count, int64_t least) const;

  const Kernels& kernels_;
  ThreadPool pool_;
  SharedWork work_;
  Products products_;
};

template <class Function>
void CpuOps::parallel(int64_t count, int64_t grain, int64_t work_per_item, Function function) {
  if (threads() == 1 || count <= grain || count * work_per_item < serial_work) {
    function(Range{0, count});
    return;
  }
  const int64_t pieces = (count + grain - 1) / grain;
  for (int worker = 0; worker < threads(); worker++)
    work_.give(worker, partition(pieces, 1, worker, threads()));
  pool_.run([&](int worker) {
    for (Range taken; (taken = work_.take(worker, pieces)).begin < taken.end;)
      function(Range{taken.begin * grain, std::min(taken.end * grain, count)});
  });
}

void CpuOps::do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) {
  int64_t row_bytes = table.stride * static_cast<int64_t>(size_of(table.dtype));
  for (size_t t = 0; t < tokens.size(); t++) {
    kernels_.embed(out.row(static_cast<int64_t>(t)), table.data + tokens[t] * row_bytes, table.dtype,
                   out.cols());
  }
}

void CpuOps::do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) {
  parallel(x.rows(), 1, x.cols(), [&](Range rows) {
    for (int64_t t = rows.begin; t < rows.end; t++) {
      kernels_.normalize(out.row(t), x.row(t), norm, x.cols());
    }
  });
}

void CpuOps::do_token_shift(const TokenShift& s) {
  int64_t tokens = s.x.rows(), width = s.x.cols();
  auto row_bytes = static_cast<size_t>(width) * 4;
  std::memcpy(s.normalized.row(0), s.state.f32(), row_bytes);
  do_layer_norm(s.normalized.slice_rows(1, tokens), s.x, s.norm);
  parallel(tokens, 1, width * static_cast<int64_t>(s.mixes.size()), [&](Range rows) {
    for (int64_t t = rows.begin; t < rows.end; t++) kernels_.mix(s, t);
  });
  std::memcpy(s.state.f32(), s.normalized.row(tokens), row_bytes);
}

// For one token each thread has its share at once: to take what is left of another's means to fetch a state
// from its caches, which takes longer than to wait.
int64_t CpuOps::grain_of_state(int64_t tokens, int64_t count, int64_t least) const {
  return tokens == 1 ? round_up((count + threads() - 1) / threads(), least) : least;
}

void CpuOps::do_wkv4(const Wkv4& w) {
  const int64_t channels = w.r.cols();
  parallel(channels, grain_of_state(w.r.rows(), channels, 16), w.r.rows() * 64,
           [&](Range range) { kernels_.wkv4(w, range); });
}

void CpuOps::do_wkv5(const Wkv5& w) {
  const int64_t heads = w.state.sizes[0], head_size = w.state.sizes[1];
  parallel(heads, grain_of_state(w.r.rows(), heads, 1), w.r.rows() * head_size * head_size,
           [&](Range range) { kernels_.wkv5(w, range); });
}

void CpuOps::do_wkv7(const Wkv7& w) {
  const int64_t heads = w.state.sizes[0], head_size = w.state.sizes[1];
  parallel(heads, grain_of_state(w.r.rows(), heads, 1), w.r.rows() * head_size * head_size * 2,
           [&](Range range) { kernels_.wkv7(w, range); });
}

// What is filled at once needs no waiting for.
class CpuSlots final : public Slots {
 public:
  void fill(int, std::byte* to, const std::byte* from, size_t bytes) override {
    std::copy_n(from, bytes, to);
  }
  void acquire(int) override {}
  void release(int) override {}
};

class CpuDevice final : public Device {
 public:
  CpuDevice(int threads, const Kernels& kernels)
      : kernels_(kernels), threads_(threads > 0 ? threads : usable_cores()) {}

  [[nodiscard]] std::string description() const override {
    return fmt::format("cpu ({}, {} thread{})", kernels_.name, threads_, threads_ == 1 ? "" : "s");
  }
  [[nodiscard]] uint8_t id() const override { return 0; }
  [[nodiscard]] int threads() const override { return threads_; }
  [[nodiscard]] uint64_t free_memory() const override { return available_memory(); }
  Buffer allocate(size_t bytes) override { return Buffer::host(bytes); }
  Buffer allocate_staging(size_t bytes) override { return Buffer::host(bytes); }
  Buffer pin(std::span<const std::byte> bytes) override {
    return {const_cast<std::byte*>(bytes.data()), bytes.size(), [](std::byte*) {}};
  }
  void copy_in(std::byte* device, const std::byte* host, size_t bytes) override { copy(device, host, bytes); }
  void copy_out(std::byte* host, const std::byte* device, size_t bytes) override {
    copy(host, device, bytes);
  }
  void copy(std::byte* to, const std::byte* from, size_t bytes) override { std::copy_n(from, bytes, to); }
  [[nodiscard]] uint64_t workspace_bytes(const Ops::Limits& limits) const override {
    return static_cast<uint64_t>(Products::bytes(limits, kernels_, threads_));
  }
  std::unique_ptr<Ops> make_ops() override { return std::make_unique<CpuOps>(threads_, kernels_); }
  std::unique_ptr<Slots> make_slots(Ops&, int) override { return std::make_unique<CpuSlots>(); }

 private:
  const Kernels& kernels_;
  int threads_;
};

}  // namespace

std::unique_ptr<Device> open(int threads) { return open(threads, choose_kernels()); }

std::unique_ptr<Device> open(int threads, const Kernels& kernels) {
  return std::make_unique<CpuDevice>(threads, kernels);
}

}  // namespace rwkv::cpu
