#include "core/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string_view>

#include "core/error.h"

namespace rwkv {
namespace {

constexpr uint64_t unknown = std::numeric_limits<uint64_t>::max();

uint64_t number_in(const char* path) {
  std::ifstream in(path);
  uint64_t value = 0;
  return in >> value ? value : unknown;  // "max" is no number
}

uint64_t system_available() {
  std::ifstream in("/proc/meminfo");
  std::string key;
  uint64_t kilobytes = 0;
  std::string unit;
  while (in >> key >> kilobytes) {
    if (key == "MemAvailable:") return kilobytes * 1024;
    std::getline(in, unit);
  }
  return unknown;
}

/// The number behind a name in a file of such lines.
uint64_t number_of(const char* path, std::string_view name) {
  std::ifstream in(path);
  std::string key;
  uint64_t value = 0;
  while (in >> key >> value) {
    if (key == name) return value;
  }
  return unknown;
}

// What the group uses counts cached files too, which it gives back.
uint64_t group_available() {
  uint64_t limit = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  if (limit == unknown || used == unknown) return unknown;
  uint64_t cached = number_of("/sys/fs/cgroup/memory.stat", "inactive_file");
  if (cached != unknown) used -= std::min(used, cached);
  return limit > used ? limit - used : 0;
}

}  // namespace

uint64_t available_memory() { return std::min(system_available(), group_available()); }

void check_memory(uint64_t bytes, const std::string& what, const std::string& advice) {
  uint64_t available = available_memory();
  if (bytes <= available) return;
  throw Error(fmt::format("{}: needs {:.1f} GB of memory, {:.1f} GB are free; {}", what,
                          static_cast<double>(bytes) / 1e9, static_cast<double>(available) / 1e9, advice));
}

}  // namespace rwkv
