// What the scheduler knows of the block that runs, and how it chooses the thread that goes on. Inline, as a
// kernel changes threads millions of times.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "cuda/emulator/block.h"
#include "cuda/emulator/random.h"

namespace emulator {

enum class ThreadState : uint8_t { ready, at_barrier, at_warp, done };

struct Thread {
  Fiber* fiber;  // null: it has not begun
  Site site;
  uint3 index;
  ThreadState state;
};

// Where the lanes of a mask meet. It stays in use until the last of them has read what it came for.
struct Rendezvous {
  bool open;
  Meeting meeting;
  int readers;
  unsigned mask, arrived, votes;
  Site site;
  uint64_t values[32];
};

// Each lane is at one rendezvous at most, and one more may be opened.
constexpr int max_meetings = 33;
struct Warp {
  unsigned live;
  int used, latest;  // meetings: in use, and the one opened last
  Rendezvous meetings[max_meetings];
};

// The block that runs. There is one at a time; running_thread is its thread that runs.
struct Block {
  uint64_t number;  // of all blocks so far, from 1
  Thread threads[max_threads];
  Warp warps[max_threads / 32];
  unsigned count, live;
  // Ring of threads that can go on, in the order of their turns.
  unsigned ready[max_threads], first, ready_count;
  unsigned at_barrier;
  int votes, result;
  Site barrier;
  // What its atomics touched last, for fences; some.
  void* atomics[8];
  unsigned atomic_count;
  // Of the whole grid.
  Order order;
  Random random;
  BlockCounters counters;
  bool tracks_races;
};
extern Block block;

// Addresses at which the thread sanitizer sees an order: of the grid, and numbers of those of a block.
extern char start_mark, end_mark;
constexpr int barrier_mark = 0, fence_mark = 1, first_warp_mark = 2;

/// For a thread that begins.
Fiber* take_fiber(unsigned thread);
/// When no thread is left that can go on. Returns when the fiber is taken again.
void end_block();

inline bool same_site(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

inline void push_ready(unsigned thread) {
  const bool front = block.order == Order::by_warp;
  if (front) block.first = (block.first + max_threads - 1) % max_threads;
  block.ready[front ? block.first : (block.first + block.ready_count) % max_threads] = thread;
  block.ready_count++;
}

inline unsigned pop_ready() {
  if (block.order == Order::random) {
    const auto chosen = static_cast<unsigned>(block.random.below(block.ready_count));
    std::swap(block.ready[block.first], block.ready[(block.first + chosen) % max_threads]);
  }
  const unsigned thread = block.ready[block.first];
  block.first = (block.first + 1) % max_threads;
  block.ready_count--;
  return thread;
}

// Makes these threads ready. Pushed to the front, the last pushed comes first.
template <class Choose>
void wake(unsigned begin, unsigned end, Choose choose) {
  if (block.order == Order::ascending || block.order == Order::random) {
    for (unsigned thread = begin; thread < end; thread++) {
      if (choose(thread)) push_ready(thread);
    }
  } else {
    for (unsigned thread = end; thread-- > begin;) {
      if (choose(thread)) push_ready(thread);
    }
  }
}

inline void become(unsigned thread) {
  running_thread = thread;
  threadIdx = block.threads[thread].index;
}

// Lets the next thread go on. The running one waits, or has ended and left its fiber to whoever takes it.
inline void next_thread() {
  Fiber& from = *block.threads[running_thread].fiber;
  // Whatever becomes of this thread, the end of the grid follows what it did.
  if (block.tracks_races) race_release(&end_mark);
  if (block.ready_count == 0) {
    end_block();
    return;
  }
  const unsigned next = pop_ready();
  Thread& to = block.threads[next];
  if (to.fiber == nullptr) to.fiber = take_fiber(next);
  become(next);
  if (to.fiber != &from) switch_fiber(from, *to.fiber, false);
}

}  // namespace emulator
