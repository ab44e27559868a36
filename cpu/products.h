// Products of a layer on several threads: Ops::matmul() of the CPU.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "core/shared_work.h"
#include "core/thread_pool.h"
#include "cpu/kernels/kernels.h"
#include "ops/ops.h"

namespace rwkv::cpu {

/// A step is worth waking the threads for when it does more than about this many multiply-adds or moves more
/// than this many values: a few microseconds of work.
constexpr int64_t serial_work = 1 << 14;

class Products {
 public:
  /// Memory that products within these limits take.
  static int64_t bytes(const Ops::Limits& limits, const Kernels& kernels, int threads);

  Products(const Kernels& kernels, ThreadPool& pool, SharedWork& work)
      : kernels_(kernels), pool_(pool), work_(work), own_(static_cast<size_t>(pool.threads())) {}

  void reserve(const Ops::Limits& limits);
  /// All of them have the same number of tokens.
  void multiply(std::span<const Product> products);

 private:
  void place_inputs(std::span<const Product> products);
  void place_input(PreparedProduct& p, std::byte*& to);
  void prepare_inputs();
  [[nodiscard]] PreparedProduct with_own_input(size_t product, int worker);
  void divide();
  void limit_grains();
  [[nodiscard]] int64_t piece_at(int64_t byte) const;
  void run_pieces(Range pieces, int worker);
  void run_units(const PreparedProduct& p, Range units, std::byte* scratch) const;

  // What is laid out for one product, or for several with the same input.
  struct Input {
    const Tensor* x;
    Operand operand;
    std::byte* to;
  };
  static constexpr size_t in_place = SIZE_MAX;
  // Of one token every thread lays out the inputs that its own pieces read, in its own room, when it comes to
  // them: no thread waits for another one's work, and none writes to lines that lie in another's caches.
  struct alignas(64) Own {
    std::vector<std::optional<Operand>> operands;  // of inputs_: none where it is not laid out yet
  };
  // Pieces of all products have numbers: those of one product follow each other from `first` on.
  struct Division {
    int64_t first, units, grain, bytes;
    [[nodiscard]] int64_t pieces() const { return (units + grain - 1) / grain; }
    [[nodiscard]] Division with_at_most(int64_t limit) const {
      return {first, units, std::min(grain, limit), bytes};
    }
  };

  const Kernels& kernels_;
  ThreadPool& pool_;
  SharedWork& work_;
  int64_t tokens_ = 0, values_ = 0;  // of this step: tokens, and inputs of all of them
  std::vector<PreparedProduct> prepared_;
  std::vector<Division> divisions_;  // of prepared_
  std::vector<size_t> input_of_;     // of prepared_: which of inputs_, or in_place
  std::vector<Input> inputs_;
  std::vector<Own> own_;  // of the threads
  Buffer rooms_, scratch_;
  int64_t room_bytes_ = 0, scratch_bytes_ = 0;  // of one thread
};

}  // namespace rwkv::cpu
