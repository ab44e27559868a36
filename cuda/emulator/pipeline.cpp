// Copies to shared memory that a thread does not wait for: at once when threads run in descending order, as
// late as may be when they run in ascending order or by warp, some so and some so in random order. What
// nobody waits for until the thread ends does not happen.
#include "cuda/emulator/include/cuda_pipeline.h"

#include "cuda/emulator/schedule.h"

namespace emulator {

namespace {

constexpr unsigned max_copies = 128;

struct Waiting {
  ThreadCopy copy;
  size_t group;
};

// A ring of what waits, of one thread.
struct Copies {
  uint64_t block;  // whose thread it is; of another: nothing waits
  size_t groups;   // ended
  unsigned first, count;
  Waiting waiting[max_copies];
};
Copies all[max_threads];

Copies& own() {
  Copies& copies = all[running_thread];
  if (copies.block != block.number) {
    copies.block = block.number;
    copies.groups = copies.first = copies.count = 0;
  }
  return copies;
}

void check(const ThreadCopy& copy) {
  if (copy.bytes != 4 && copy.bytes != 8 && copy.bytes != 16) {
    stop_kernel(cudaErrorLaunchFailure, "an asynchronous copy of %zu bytes, not 4, 8 or 16", copy.bytes);
  }
  for (const void* side : {static_cast<const void*>(copy.to), copy.from}) {
    if (reinterpret_cast<uintptr_t>(side) % copy.bytes != 0) stop_at_misaligned(side, copy.bytes);
  }
  if (!in_shared(copy.to) || in_shared(copy.from)) {
    stop_kernel(cudaErrorIllegalAddress, "an asynchronous copy that is not from global to shared memory");
  }
}

}  // namespace

bool begin_copy(const ThreadCopy& copy) {
  check(copy);
  loaded_bytes += copy.bytes;
  Copies& copies = own();
  const bool now =
      block.order == Order::descending || (block.order == Order::random && block.random.below(2) == 0);
  if (now) return true;
  if (copies.count == max_copies) {
    stop_kernel(cudaErrorLaunchFailure, "the emulated device lets %u copies of a thread wait, not more",
                max_copies);
  }
  copies.waiting[(copies.first + copies.count++) % max_copies] = {copy, copies.groups};
  return false;
}

void end_copy_group() { own().groups++; }

bool take_copy(size_t pending, ThreadCopy& copy) {
  Copies& copies = own();
  const Waiting& oldest = copies.waiting[copies.first];
  if (copies.count == 0 || oldest.group + pending >= copies.groups) return false;
  copy = oldest.copy;
  copies.first = (copies.first + 1) % max_copies;
  copies.count--;
  return true;
}

}  // namespace emulator
