#include "cuda/emulator/execute.h"

#include <sys/mman.h>

#include <cstring>

#include "cuda/emulator/block.h"
#include "cuda/emulator/fault.h"
#include "cuda/emulator/memory.h"
#include "cuda/emulator/random.h"
#include "cuda/emulator/state.h"
#include "cuda/emulator/symbol.h"

namespace emulator {

namespace {

// One side of a copy must still be what it was at the call.
bool still_there(const void* side, const Work& work) {
  const memory::Allocation* a = memory::find(side);
  if (memory::owns(side)) return a != nullptr && memory::holds(a->space, side, work.bytes);
  return !work.pinned_host || memory::is_pinned(side, work.bytes);
}

void copy(const Work& work) {
  if (check_sides(work) != cudaSuccess) return;
  const void* from = work.staged ? work.staged->data() : work.from;
  unsigned devices = 0;
  for (const void* side : {static_cast<const void*>(work.to), from}) {
    const memory::Allocation* a = side == nullptr ? nullptr : memory::find(side);
    if (a != nullptr && a->space != memory::pinned) devices |= 1u << a->space;
  }
  memory::open(devices);
  if (work.bytes == 0) return;
  if (work.kind == Work::Kind::fill) {
    memset(work.to, work.value, work.bytes);
  } else {
    memmove(work.to, from, work.bytes);
  }
}

void run_kernel(Work& work, int device) {
  State& s = state();
  const std::string name = symbol_name(work.kernel.function);
  const auto limit = s.dynamic_shared.find(work.kernel.function);
  const Scheduling scheduling = {
      s.settings.order, Random(s.settings.seed ^ work.number * 0x9e3779b97f4a7c15).next(),
      limit == s.dynamic_shared.end() ? max_static_shared
                                      : std::max(max_static_shared, s.settings.shared_memory)};
  memory::open(1u << device | s.peers[static_cast<size_t>(device)]);
  catch_faults();
  loaded_bytes = 0;
  const Failure failure = run_grid(work.kernel, work.config, name.c_str(), scheduling);
  const BlockCounters& counted = block_counters();
  s.counters.kernel_load_bytes += loaded_bytes;
  s.counters.barriers += counted.barriers;
  s.counters.warp_primitives += counted.warp_primitives;
  work.step->seconds = (work.in_graph ? s.settings.graph_kernel_seconds : s.settings.kernel_seconds) +
                       static_cast<double>(loaded_bytes) / s.settings.device_bandwidth;
  if (failure.error != cudaSuccess) {
    fail(failure.error, failure.text);
    return;
  }
  const std::string damage = memory::damage();
  if (!damage.empty()) fail(cudaErrorIllegalAddress, "kernel " + name + ": " + damage);
}

// What __launch_bounds__ left before the function, or 0. Bounds are multiples of 32: a smaller rest may stem
// from the alignment of functions.
uint64_t launch_bound(const void* function) {
  const auto* code = static_cast<const unsigned char*>(function);
  constexpr unsigned char nop = 0x90;
  ptrdiff_t count = 0;
  while (count < max_threads && code[-1 - count] == nop) count++;
  return static_cast<uint64_t>(count) / 32 * 32;
}

// Addresses of programs, stacks and heaps; sanitizers' own memory lies below.
bool may_be_address(const void* address) {
  const auto word = reinterpret_cast<uintptr_t>(address);
  return word >= 0x500000000000 && word < 0x800000000000;
}

bool mapped(void* address) {
  unsigned char in_core = 0;
  return mincore(static_cast<char*>(address) - reinterpret_cast<uintptr_t>(address) % 4096, 1, &in_core) == 0;
}

// What is wrong with a kernel's use of the address, or "".
std::string unreachable(const void* address, int device) {
  if (address == nullptr || memory::is_pinned(address, 1)) return "";
  const memory::Allocation* a = memory::find(address);
  if (a == nullptr) {
    if (!memory::owns(address)) return "host memory that is not pinned";
    return "";  // one behind an allocation, perhaps: a fault if it is used
  }
  const unsigned reachable = 1u << device | state().peers[static_cast<size_t>(device)];
  if (!a->live) return memory::describe(address);
  if (a->space == memory::pinned || (reachable >> a->space & 1) != 0) return "";
  return memory::describe(address) + ", out of reach for device " + std::to_string(device);
}

}  // namespace

void execute(Work& work, int device) {
  switch (work.kind) {
    case Work::Kind::copy:
    case Work::Kind::fill:
      copy(work);
      break;
    case Work::Kind::kernel:
      run_kernel(work, device);
      break;
    case Work::Kind::record:
      work.moment->done = true;
      break;
    case Work::Kind::wait:
      break;
  }
}

cudaError_t check_sides(const Work& work) {
  const bool fill = work.kind == Work::Kind::fill;
  const bool from_there = fill || work.staged || still_there(work.from, work);
  if (from_there && still_there(work.to, work)) return cudaSuccess;
  return fail(cudaErrorIllegalAddress,
              std::string(fill ? "a fill" : "a copy") + " of " + std::to_string(work.bytes) + " bytes" +
                  (from_there ? " to " : " from ") + memory::describe(from_there ? work.to : work.from) +
                  ", released before the work was done");
}

cudaError_t check_launch(const cudaLaunchConfig_t& config, const Kernel& kernel, int device) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const std::string name =
      "launch of " + symbol_name(kernel.function) + " on device " + std::to_string(device) + ": ";
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0) {
    return fail(cudaErrorInvalidConfiguration, name + "a size is zero");
  }
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    return fail(cudaErrorInvalidConfiguration, name + "too many blocks");
  }
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || threads > max_threads) {
    return fail(
        cudaErrorInvalidConfiguration,
        name + std::to_string(threads) + " threads in a block, more than " + std::to_string(max_threads));
  }
  const uint64_t bound = launch_bound(kernel.function);
  if (bound != 0 && threads > bound) {
    return fail(cudaErrorInvalidConfiguration,
                name + std::to_string(threads) + " threads in a block, more than its __launch_bounds__ of " +
                    std::to_string(bound));
  }
  const auto set = state().dynamic_shared.find(kernel.function);
  const size_t limit = set == state().dynamic_shared.end()
                           ? max_static_shared
                           : std::max(max_static_shared, static_cast<size_t>(set->second));
  if (config.dynamicSmemBytes > limit) {
    return fail(cudaErrorInvalidValue, name + std::to_string(config.dynamicSmemBytes) +
                                           " bytes of dynamic shared memory, more than " +
                                           std::to_string(limit));
  }
  return cudaSuccess;
}

cudaError_t check_arguments(const Kernel& kernel, const Argument* arguments, int count, int device) {
  for (int i = 0; i < count; i++) {
    const auto* bytes = static_cast<const char*>(arguments[i].data);
    for (size_t at = 0; at + 8 <= arguments[i].bytes; at += 8) {
      void* word = nullptr;
      memcpy(&word, bytes + at, sizeof word);
      const bool candidate = memory::owns(word) || (may_be_address(word) && mapped(word));
      if (!candidate) continue;
      const std::string wrong = unreachable(word, device);
      if (!wrong.empty()) {
        return fail(cudaErrorIllegalAddress, "kernel " + symbol_name(kernel.function) + ", argument " +
                                                 std::to_string(i + 1) + ": the address of " + wrong);
      }
    }
  }
  return cudaSuccess;
}

}  // namespace emulator
