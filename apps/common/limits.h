// What this machine can do, measured, to compare programs with.
#pragma once

namespace rwkv::apps {

/// Bytes per second that `threads` threads together read from memory: the best of a few passes over a buffer
/// much larger than the caches.
double measure_read_bandwidth(int threads);

/// The most memory of this process that was resident at once, in bytes: all, and less what belongs to mapped
/// files.
struct PeakMemory {
  double resident, without_files;
};
PeakMemory measure_peak_memory();

}  // namespace rwkv::apps
