// What this machine can do, measured, to compare programs with.
#pragma once

namespace rwkv::apps {

/// Bytes per second that `threads` threads together read from memory: the best of a few passes over a buffer
/// much larger than the caches.
double measure_read_bandwidth(int threads);

/// Memory of this process in bytes: the most that was resident at once, and what is resident now besides the
/// pages of mapped files.
struct PeakMemory {
  double resident, without_files;
};
PeakMemory measure_peak_memory();

}  // namespace rwkv::apps
