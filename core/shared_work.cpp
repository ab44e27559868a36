#include "core/shared_work.h"

#include <algorithm>
#include <cassert>

namespace rwkv {
namespace {

uint64_t packed(Range pieces) {
  return static_cast<uint64_t>(pieces.end) << 32 | static_cast<uint64_t>(pieces.begin);
}

Range unpacked(uint64_t pieces) {
  return {static_cast<int64_t>(pieces & UINT32_MAX), static_cast<int64_t>(pieces >> 32)};
}

/// split(what there is) gives what is taken and what is left; not called when there is nothing. The memory
/// that pieces stand for is ordered by the step's begin and end alone.
template <class Split>
Range take_from(std::atomic<uint64_t>& part, Split split) {
  uint64_t seen = part.load(std::memory_order_relaxed);
  while (true) {
    const Range pieces = unpacked(seen);
    if (pieces.begin >= pieces.end) return {0, 0};
    const auto [taken, left] = split(pieces);
    if (part.compare_exchange_weak(seen, packed(left), std::memory_order_relaxed)) return taken;
  }
}

struct Split {
  Range taken, left;
};

}  // namespace

SharedWork::SharedWork(int workers)
    : workers_(workers), parts_(std::make_unique<Part[]>(static_cast<size_t>(workers))) {}

void SharedWork::give(int worker, Range pieces) {
  assert(0 <= pieces.begin && pieces.begin <= pieces.end && pieces.end <= UINT32_MAX);
  parts_[static_cast<size_t>(worker)].pieces.store(packed(pieces), std::memory_order_relaxed);
}

Range SharedWork::take(int worker, int64_t most) {
  Range taken = take_from(parts_[static_cast<size_t>(worker)].pieces, [most](Range all) {
    const int64_t half = (all.end - all.begin + 1) / 2, cut = all.begin + std::min(half, most);
    return Split{{all.begin, cut}, {cut, all.end}};
  });
  for (int i = 1; i < workers_ && taken.begin == taken.end; i++) {
    const auto other = static_cast<size_t>((worker + i) % workers_);
    taken = take_from(parts_[other].pieces, [](Range all) {
      return Split{{all.end - 1, all.end}, {all.begin, all.end - 1}};
    });
  }
  return taken;
}

}  // namespace rwkv
