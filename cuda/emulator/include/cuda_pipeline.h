// The part of the toolkit's header of this name that this project uses: copies from global to shared memory
// that a thread does not wait for. Those since a commit are a group.
#pragma once

#include <cstddef>
#include <cstring>

#include "cuda/emulator/device.h"

namespace emulator {

struct ThreadCopy {
  void* to;
  const void* from;
  size_t bytes;
};
/// Whether the copy shall be done now; else take_copy will give it.
bool begin_copy(const ThreadCopy& copy);
void end_copy_group();
/// A copy to do before all groups of this thread but the last `pending` are done; false: no more.
bool take_copy(size_t pending, ThreadCopy& copy);

// Here, so that sanitizers see the kernel's accesses.
inline void do_copy(const ThreadCopy& copy) {
  if (copy.bytes == 16) memcpy(copy.to, copy.from, 16);
  if (copy.bytes == 8) memcpy(copy.to, copy.from, 8);
  if (copy.bytes == 4) memcpy(copy.to, copy.from, 4);
}

}  // namespace emulator

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
/// 4, 8 or 16 bytes, aligned so. The source is read and the target written at some time until the wait.
inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
  const emulator::ThreadCopy copy = {to, from, bytes};
  if (emulator::begin_copy(copy)) emulator::do_copy(copy);
}
inline void __pipeline_commit() { emulator::end_copy_group(); }
/// Until this thread's groups are done, but the last `pending`. Other threads see them after a barrier.
inline void __pipeline_wait_prior(size_t pending) {
  for (emulator::ThreadCopy copy; emulator::take_copy(pending, copy);) emulator::do_copy(copy);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
