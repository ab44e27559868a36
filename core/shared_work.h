// Work of one step that threads share: each begins with a part of its own, and who is done takes from others.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "core/thread_pool.h"

namespace rwkv {

/// Threads are seldom equally fast: cores differ, and other programs use some of them, too. Pieces that
/// follow each other stay with one thread as long as it keeps up, so that it reads its own memory in one go.
class SharedWork {
 public:
  /// For workers 0 to workers - 1. Nobody has work.
  explicit SharedWork(int workers);

  /// Before the step: what the worker begins with. Pieces are numbers from 0 to 2^32 - 1; ranges of workers
  /// must not overlap.
  void give(int worker, Range pieces);

  /// In the step, by the worker itself: pieces that nobody else gets; empty when there are none left. Half of
  /// its own part's rest, from the front, but not more than `most`; after that one from the back of
  /// another's.
  Range take(int worker, int64_t most);

 private:
  struct alignas(64) Part {
    std::atomic<uint64_t> pieces{0};  ///< the end in the upper half, the begin in the lower one
  };

  int workers_;
  std::unique_ptr<Part[]> parts_;
};

}  // namespace rwkv
