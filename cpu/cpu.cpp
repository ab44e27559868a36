#include "cpu/cpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/checked.h"
#include "core/memory.h"
#include "core/processors.h"
#include "core/shared_work.h"
#include "core/thread_pool.h"
#include "cpu/features.h"
#include "cpu/kernels/kernels.h"
#include "ops/layout.h"

namespace rwkv::cpu {
namespace {

// A step is worth waking the threads for when it does more than about this many multiply-adds or moves more
// than this many values: a few microseconds of work.
constexpr int64_t serial_work = 1 << 14;

constexpr int64_t strip_outputs = 64;  // matmul_rows cuts here
constexpr int64_t strip_blocks = strip_outputs / block_outputs;

// Units that a thread takes at once for one token: microseconds of work. Each piece of rows has to find the
// inputs that are not zero anew, and reads less of a row, which is a place of its own in memory: a thread
// takes its share at once, or as much as is added up in one pass.
int64_t grain_of_token(int64_t units, int64_t bytes, bool rows, int threads) {
  constexpr int64_t wanted = 64 << 10, most_strips = rows_outputs / strip_outputs;
  if (rows) return std::clamp<int64_t>((units + threads - 1) / threads, 1, most_strips);
  return std::clamp<int64_t>(wanted * units / std::max<int64_t>(bytes, 1), 1,
                             std::max<int64_t>(units / (4 * threads), 1));
}

// Room for prepared inputs of any Operand.
int64_t input_bytes(int64_t tokens, int64_t inputs) {
  return std::max(tokens * operand_bytes, round_up(tokens, operand_tile_tokens) * 2) * inputs;
}

class CpuOps final : public Ops {
 public:
  CpuOps(int threads, const Kernels& kernels) : kernels_(kernels), pool_(threads), work_(pool_.threads()) {}

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
  void do_reserve(const Limits& limits) override;
  void do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) override;
  void do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) override;
  void do_token_shift(const TokenShift& shift) override;
  void do_matmul(std::span<const Product> products) override;
  void do_wkv4(const Wkv4& wkv) override;
  void do_wkv5(const Wkv5& wkv) override;
  void do_wkv7(const Wkv7& wkv) override;

  // function(Range) for parts of [0, count) on all threads, cut at multiples of grain; alone when there is
  // little work.
  template <class Function>
  void parallel(int64_t count, int64_t grain, int64_t work_per_item, Function function);

  [[nodiscard]] int64_t grain_of_state(int64_t tokens, int64_t count, int64_t least) const;
  void prepare_inputs(std::span<const Product> products);
  [[nodiscard]] const PreparedProduct* with_same_input(const PreparedProduct& p) const;
  void prepare_share(int64_t tokens, int worker, int workers) const;
  void divide_products();
  void limit_grains();
  [[nodiscard]] int64_t piece_at(int64_t byte) const;
  void run_pieces(Range pieces, std::byte* scratch) const;
  void run_units(const PreparedProduct& p, Range units, std::byte* scratch) const;

  const Kernels& kernels_;
  ThreadPool pool_;
  SharedWork work_;
  /// Inputs of several tokens that have their place in inputs_.
  struct Unprepared {
    size_t index;  // in prepared_
    std::byte* to;
  };
  // Pieces of all products have numbers: those of one product follow each other from `first` on.
  struct Division {
    int64_t first, units, grain, bytes;
    [[nodiscard]] int64_t pieces() const { return (units + grain - 1) / grain; }
    [[nodiscard]] Division with_at_most(int64_t limit) const {
      return {first, units, std::min(grain, limit), bytes};
    }
  };
  std::vector<PreparedProduct> prepared_;
  std::vector<Unprepared> unprepared_;
  std::vector<Division> divisions_;  // of prepared_
  Buffer inputs_, scratch_;
  int64_t scratch_bytes_ = 0;  // of one thread
};

void CpuOps::do_reserve(const Limits& limits) {
  int64_t tokens = std::max<int64_t>(limits.tokens, 1);
  auto inputs = static_cast<size_t>(input_bytes(tokens, limits.product_inputs));
  if (inputs > inputs_.size()) inputs_ = Buffer::host(inputs);
  if (int64_t bytes = round_up(kernels_.scratch_bytes(tokens), 64); bytes > scratch_bytes_) {
    scratch_bytes_ = bytes;
    scratch_ = Buffer::host(static_cast<size_t>(bytes * threads()));
  }
  const auto products = static_cast<size_t>(limits.product_inputs / 64 + 1);  // a product has at least 64
  prepared_.reserve(products);
  unprepared_.reserve(products);
  divisions_.reserve(products);
}

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

// Lays the inputs of all products out in inputs_, an input of several products once; one that is good as it
// is stays in place.
void CpuOps::prepare_inputs(std::span<const Product> products) {
  int64_t tokens = products[0].x.rows(), used = 0, total = 0;
  for (const Product& p : products) total += round_up(p.x.cols(), 64);
  do_reserve({tokens, total});
  prepared_.clear();
  unprepared_.clear();
  for (const Product& p : products) {
    PreparedProduct prepared{.product = &p, .operand = kernels_.operand_of(p.weight, tokens)};
    if (tokens == 1 && prepared.operand == Operand::f32 && p.x.cols() % 64 == 0) {
      prepared.x = p.x.data;
    } else if (const PreparedProduct* other = with_same_input(prepared)) {
      prepared.x = other->x;
    } else {
      std::byte* to = inputs_.data() + used;
      used += input_bytes(tokens, round_up(p.x.cols(), 64));
      prepared.x = to;
      if (tokens > 1) {
        unprepared_.push_back({prepared_.size(), to});
      } else if (!kernels_.prepare(p.x, prepared.operand, {0, 1}, to)) {
        prepared.operand = Operand::f32;
        kernels_.prepare(p.x, Operand::f32, {0, 1}, to);
      }
    }
    prepared_.push_back(prepared);
  }
  if (tokens * total < serial_work) {
    prepare_share(tokens, 0, 1);
  } else if (!unprepared_.empty()) {
    pool_.run([&](int worker) { prepare_share(tokens, worker, threads()); });
  }
}

const PreparedProduct* CpuOps::with_same_input(const PreparedProduct& p) const {
  const Tensor& x = p.product->x;
  auto same = std::ranges::find_if(prepared_, [&](const PreparedProduct& other) {
    const Tensor& y = other.product->x;
    return other.operand == p.operand && y.data == x.data && y.cols() == x.cols() && y.stride == x.stride;
  });
  return same == prepared_.end() ? nullptr : &*same;
}

void CpuOps::prepare_share(int64_t tokens, int worker, int workers) const {
  for (const Unprepared& u : unprepared_) {
    const PreparedProduct& p = prepared_[u.index];
    const Range range = partition(tokens, kernels_.operand_group(p.operand), worker, workers);
    if (range.begin < range.end) kernels_.prepare(p.product->x, p.operand, range, u.to);
  }
}

// A unit is a block of 16 outputs, or a strip of rows; a piece is what a thread takes at once.
void CpuOps::divide_products() {
  const bool one_token = prepared_[0].product->x.rows() == 1;
  divisions_.clear();
  for (const PreparedProduct& p : prepared_) {
    const MatrixLayout m = layout_of(p.product->weight);
    const bool rows = m.layout == Layout::input_rows;
    const int64_t units = rows ? (m.outputs + strip_outputs - 1) / strip_outputs : m.units();
    const int64_t grain = one_token ? grain_of_token(units, m.bytes(), rows, threads())
                                    : blocks_at_once(p.operand) / (rows ? strip_blocks : 1);
    divisions_.push_back({0, units, grain, m.bytes()});
  }
  if (!one_token) limit_grains();
  int64_t pieces = 0, bytes = 0, begin = 0;
  for (Division& d : divisions_) {
    d.first = pieces;
    pieces += d.pieces();
    bytes += d.bytes;
  }
  for (int worker = 0; worker < threads(); worker++) {
    const int64_t end = worker + 1 == threads() ? pieces : piece_at(bytes * (worker + 1) / threads());
    work_.give(worker, {begin, end});
    begin = end;
  }
}

// The most that a panel has is the fastest for its operations, but threads may get more unequal shares of few
// such pieces. A piece takes as long as its units and one more, for what it does whatever their number.
void CpuOps::limit_grains() {
  auto time_with = [&](int64_t limit) {
    int64_t pieces = 0;
    for (const Division& d : divisions_) pieces += d.with_at_most(limit).pieces();
    return (pieces + threads() - 1) / threads() * (limit + 1);
  };
  int64_t best = 1;
  for (const Division& d : divisions_) best = std::max(best, d.grain);
  for (int64_t limit = best - 1; limit > 0; limit--) {
    if (time_with(limit) < time_with(best)) best = limit;
  }
  for (Division& d : divisions_) d = d.with_at_most(best);
}

// The first one that begins there or later when all weights follow each other.
int64_t CpuOps::piece_at(int64_t byte) const {
  for (const Division& d : divisions_) {
    if (byte < d.bytes) return d.first + (byte * d.pieces() + d.bytes - 1) / d.bytes;
    byte -= d.bytes;
  }
  return divisions_.back().first + divisions_.back().pieces();
}

void CpuOps::run_pieces(Range pieces, std::byte* scratch) const {
  for (size_t i = 0; i < divisions_.size(); i++) {
    const Division& d = divisions_[i];
    const Range here{std::max(pieces.begin - d.first, int64_t{0}),
                     std::min(pieces.end - d.first, d.pieces())};
    if (here.begin < here.end)
      run_units(prepared_[i], {here.begin * d.grain, std::min(here.end * d.grain, d.units)}, scratch);
  }
}

void CpuOps::run_units(const PreparedProduct& p, Range units, std::byte* scratch) const {
  const Product& product = *p.product;
  const bool rows = product.weight.layout == Layout::input_rows;
  if (product.x.rows() > 1) {
    if (rows) units = {units.begin * strip_blocks, units.end * strip_blocks};
    const int64_t blocks = (product.out.cols() + block_outputs - 1) / block_outputs;
    kernels_.matmul(p, {units.begin, std::min(units.end, blocks)}, scratch);
  } else if (rows) {
    kernels_.matvec_rows(
        p, {units.begin * strip_outputs, std::min(units.end * strip_outputs, product.out.cols())});
  } else {
    kernels_.matvec_blocks(p, units);
  }
}

void CpuOps::do_matmul(std::span<const Product> products) {
  if (products.empty() || products[0].x.rows() == 0) return;
  prepare_inputs(products);
  divide_products();
  // Several tokens: a piece is long. One: the fewer pieces, the more of the weights is read in one go.
  const int64_t most = products[0].x.rows() > 1 ? 1 : INT64_MAX;
  pool_.run([&](int worker) {
    std::byte* scratch = scratch_.data() + worker * scratch_bytes_;
    for (Range taken; (taken = work_.take(worker, most)).begin < taken.end;) run_pieces(taken, scratch);
  });
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
    return static_cast<uint64_t>(input_bytes(limits.tokens, limits.product_inputs) +
                                 kernels_.scratch_bytes(limits.tokens) * threads_);
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
