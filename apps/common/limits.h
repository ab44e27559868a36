// What this machine can do, measured, to compare programs with.
#pragma once

namespace rwkv::apps {

/// Bytes per second that `threads` threads together read from memory: the best of a few passes over a buffer
/// much larger than the caches.
double measure_read_bandwidth(int threads);

/// Memory of this process in bytes: the most that was resident at once; of what is resident now, what does
/// not belong to mapped files, and what huge pages hold.
struct MemoryUse {
  double peak, without_files, huge_pages;
};
MemoryUse measure_memory();

}  // namespace rwkv::apps
