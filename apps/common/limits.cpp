#include "apps/common/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "core/buffer.h"
#include "core/thread_pool.h"

namespace rwkv::apps {
namespace {

constexpr int64_t buffer_bytes = int64_t{512} << 20;
constexpr int passes = 5;

// Wide enough to be limited by memory, whatever the compiler makes of it.
uint64_t sum_of(const std::byte* data, Range range) {
  uint64_t sums[8] = {};
  for (int64_t i = range.begin; i + 64 <= range.end; i += 64) {
    uint64_t words[8];
    std::memcpy(words, data + i, sizeof words);
    for (int k = 0; k < 8; k++) sums[k] += words[k];
  }
  uint64_t total = 0;
  for (uint64_t s : sums) total += s;
  return total;
}

// A line such as "VmHWM:     1234 kB" of /proc/self/status, in bytes.
double status_value(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

}  // namespace

double measure_read_bandwidth(int threads) {
  ThreadPool pool(threads);
  Buffer buffer = Buffer::host(static_cast<size_t>(buffer_bytes));
  std::atomic<uint64_t> sink = 0;
  double best = 0;
  for (int pass = 0; pass < passes; pass++) {
    auto start = std::chrono::steady_clock::now();
    pool.run([&](int worker) {
      sink += sum_of(buffer.data(), partition(buffer_bytes, 4096, worker, pool.threads()));
    });
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(buffer_bytes) / seconds);
  }
  return best;
}

PeakMemory measure_peak_memory() {
  return {status_value("VmHWM"), status_value("RssAnon") + status_value("RssShmem")};
}

}  // namespace rwkv::apps
