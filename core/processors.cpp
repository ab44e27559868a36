#include "core/processors.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <climits>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace rwkv {
namespace {

/// The numbers of the processors in the affinity mask, empty when the kernel does not tell.
std::vector<int> allowed_processors() {
  constexpr int max_processors = 8192;  // as many as the kernel can be built for
  std::vector<cpu_set_t> mask(max_processors / CPU_SETSIZE);
  size_t bytes = mask.size() * sizeof(cpu_set_t);
  std::vector<int> numbers;
  if (sched_getaffinity(0, bytes, mask.data()) != 0) return numbers;
  for (int i = 0; i < max_processors; i++) {
    if (CPU_ISSET_S(static_cast<size_t>(i), bytes, mask.data())) numbers.push_back(i);
  }
  return numbers;
}

/// Whole processors of the quota in this control group's cpu.max (`QUOTA PERIOD` or `max PERIOD`).
int quota_of(const std::filesystem::path& group) {
  std::ifstream in(group / "cpu.max");
  double quota = 0, period = 0;
  if (!(in >> quota >> period) || quota <= 0 || period <= 0) return INT_MAX;
  return static_cast<int>(std::clamp(quota / period, 1.0, 1e6));
}

/// The tightest quota of this process's control group (version 2) and of those around it.
int quota() {
  std::filesystem::path root = "/sys/fs/cgroup", group = root;
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("0::/")) group = root / line.substr(4);
  }
  int processors = quota_of(root);
  while (group.has_relative_path() && group != root) {
    processors = std::min(processors, quota_of(group));
    group = group.parent_path();
  }
  return processors;
}

}  // namespace

int usable_processors() {
  auto processors = static_cast<int>(allowed_processors().size());
  if (processors == 0) processors = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(processors, quota()));
}

int usable_cores() {
  std::set<std::string> cores;  // each named by the list of its logical processors
  for (int i : allowed_processors()) {
    std::ifstream in(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", i));
    std::string siblings;
    if (!std::getline(in, siblings)) siblings = fmt::format("{}", i);
    cores.insert(siblings);
  }
  int usable = usable_processors();
  return cores.empty() ? usable : std::min(usable, static_cast<int>(cores.size()));
}

}  // namespace rwkv
