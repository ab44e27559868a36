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

// Vectors as wide as the processor has keep the most loads under way.
using Words2 [[gnu::vector_size(16)]] = uint64_t;
using Words4 [[gnu::vector_size(32)]] = uint64_t;
using Words8 [[gnu::vector_size(64)]] = uint64_t;

template <class Words>
[[gnu::always_inline]] inline uint64_t sum_by(const std::byte* data, Range range) {
  constexpr int64_t width = sizeof(Words), step = 4 * width;
  Words sums[4] = {};
  for (int64_t i = range.begin; i + step <= range.end; i += step) {
    for (int k = 0; k < 4; k++) {
      Words words;
      std::memcpy(&words, data + i + k * width, sizeof words);
      sums[k] += words;
    }
  }
  sums[0] += sums[1] + sums[2] + sums[3];
  uint64_t total = 0;
  for (size_t w = 0; w < sizeof(Words) / sizeof(uint64_t); w++) total += sums[0][w];
  return total;
}
[[gnu::target("avx512f")]] uint64_t sum_by_512(const std::byte* data, Range range) {
  return sum_by<Words8>(data, range);
}
[[gnu::target("avx2")]] uint64_t sum_by_256(const std::byte* data, Range range) {
  return sum_by<Words4>(data, range);
}
uint64_t sum_of(const std::byte* data, Range range) {
  if (__builtin_cpu_supports("avx512f")) return sum_by_512(data, range);
  if (__builtin_cpu_supports("avx2")) return sum_by_256(data, range);
  return sum_by<Words2>(data, range);
}

// A line such as "VmHWM:     1234 kB" of a file in /proc/self, in bytes.
double kilobytes_in(const char* file, const std::string& key) {
  std::ifstream in(std::string("/proc/self/") + file);
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

MemoryUse measure_memory() {
  return {.peak = kilobytes_in("status", "VmHWM"),
          .without_files = kilobytes_in("status", "RssAnon") + kilobytes_in("status", "RssShmem"),
          .huge_pages =
              kilobytes_in("smaps_rollup", "AnonHugePages") + kilobytes_in("smaps_rollup", "FilePmdMapped")};
}

}  // namespace rwkv::apps
