// Runs the threads of a grid, block after block, each thread on a fiber.
// These sources hold no standard containers and are compiled without the thread sanitizer: it shall see the
// kernel's accesses and not the scheduler's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/emulator/control.h"
#include "cuda/emulator/fiber.h"
#include "cuda/emulator/launch.h"

namespace emulator {

constexpr int max_threads = 1024;
constexpr size_t max_static_shared = 48 * 1024;

struct Failure {
  cudaError_t error = cudaSuccess;
  char text[1024] = "";
};

struct Scheduling {
  Order order;
  uint64_t seed;
  size_t shared_limit;  // bytes of shared memory that a block may have, static and dynamic
};

struct BlockCounters {
  uint64_t barriers = 0, warp_primitives = 0;
};
const BlockCounters& block_counters();

/// Runs the kernel; what went wrong, if anything. `name` is the kernel's.
Failure run_grid(const Kernel& kernel, const cudaLaunchConfig_t& config, const char* name,
                 const Scheduling& scheduling);

bool kernel_running();
/// The fiber of the running thread.
const Fiber& running_fiber();
/// Ends the launch: called by the thread that did what the text says.
[[noreturn]] void stop_kernel(cudaError_t error, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// Shared memory of the running block (shared.cpp).
void begin_shared(size_t dynamic_bytes, size_t limit);
/// What a kernel wrote behind its arrays, or null.
const char* check_shared();
bool in_shared(const void* address);
/// After the last block of a grid.
void end_shared();
/// An address, one for each number, at which the thread sanitizer sees an order within the running block.
void* block_mark(size_t number);

}  // namespace emulator
