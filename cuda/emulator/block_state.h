// What the scheduler knows of the block that runs.
#pragma once

#include <cstdint>

#include "cuda/emulator/block.h"

namespace emulator {

enum class ThreadState : uint8_t { ready, at_barrier, at_warp, done };

struct Thread {
  Fiber* fiber;
  ThreadState state;
  Site site;
  uint3 index;
};

// Where the lanes of a mask meet. It stays in use until the last of them has read what it came for.
struct Rendezvous {
  bool open;
  int readers;
  unsigned mask, arrived, votes;
  Meeting meeting;
  Site site;
  uint64_t values[32];
};

// Each lane is at one rendezvous at most, and one more may be opened.
constexpr int max_meetings = 33;
struct Warp {
  unsigned live;
  int used;
  Rendezvous meetings[max_meetings];
};

// The block that runs. There is one at a time.
struct Block {
  Thread threads[max_threads];
  Warp warps[max_threads / 32];
  int count, live, current;
  // Ring of threads that can go on, in the order of their turns.
  int ready[max_threads], first, ready_count;
  int at_barrier, votes, result;
  // What its atomics touched last, for fences; some.
  void* atomics[8];
  unsigned atomic_count;
  Site barrier;
};

}  // namespace emulator
