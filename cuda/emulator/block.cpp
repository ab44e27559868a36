#include "cuda/emulator/block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda/emulator/schedule.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

uint64_t loaded_bytes = 0;
unsigned running_thread = 0;
Block block;
char start_mark, end_mark;

namespace {

// The thread sanitizer needs a fiber per thread, and others for the next block, to see races between blocks.
Fiber fibers[2 * max_threads];
Fiber* free_fibers[2 * max_threads];
int free_count = -1;
unsigned fiber_set = 0;
Fiber host;
bool running = false;
const Kernel* kernel_run;
const char* kernel_name;
Failure failure;

void end_thread() {
  Thread& self = block.threads[running_thread];
  Warp& warp = block.warps[running_thread / 32];
  const unsigned bit = 1u << (running_thread % 32);
  self.state = ThreadState::done;
  block.live--;
  warp.live &= ~bit;
  if (block.at_barrier > 0) {
    stop_kernel(cudaErrorLaunchFailure, "the thread ended while others wait at %s:%d", block.barrier.file,
                block.barrier.line);
  }
  for (int i = 0; i < warp.used; i++) {
    const Rendezvous& meeting = warp.meetings[i];
    if (meeting.open && (meeting.mask & bit) != 0) {
      stop_kernel(cudaErrorLaunchFailure, "the thread ended while lanes of its warp wait for it at %s:%d",
                  meeting.site.file, meeting.site.line);
    }
  }
}

// Runs thread after thread: when one has ended, the fiber waits here until it is taken for another.
void thread_entry() {
  begin_fiber();
  for (;;) {
    if (block.tracks_races) race_acquire(&start_mark);
    kernel_run->run(kernel_run->call.get());
    end_thread();
    if (!block.tracks_races) free_fibers[free_count++] = block.threads[running_thread].fiber;
    next_thread();
  }
}

void make_all_ready() {
  const auto all = [](unsigned) { return true; };
  if (block.order != Order::by_warp) {
    wake(0, block.count, all);
    return;
  }
  // The last pushed begins: the last warp.
  for (unsigned i = 0; i < block.count; i += 32) wake(i, std::min(i + 32, block.count), all);
}

void begin_block(uint64_t index) {
  const uint64_t row = index / gridDim.x;
  blockIdx = {static_cast<unsigned>(index % gridDim.x), static_cast<unsigned>(row % gridDim.y),
              static_cast<unsigned>(row / gridDim.y)};
  block.number++;
  block.live = block.count;
  block.first = block.ready_count = block.at_barrier = block.atomic_count = 0;
  for (unsigned i = 0; i < block.count; i++) {
    block.threads[i].fiber = nullptr;
    block.threads[i].state = ThreadState::ready;
    block.threads[i].site = {"its start", 0};
  }
  for (unsigned i = 0; i * 32 < block.count; i++) {
    const unsigned lanes = block.count - i * 32;
    Warp& warp = block.warps[i];
    warp.live = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
    warp.used = warp.latest = 0;
    warp.meetings[0].open = false;
    warp.meetings[0].readers = 0;
  }
  fiber_set = 1 - fiber_set;
  if (block.tracks_races) {  // here: a fiber's maker is ordered before it
    for (unsigned i = 0; i < block.count; i++) take_fiber(i);
  }
  make_all_ready();
}

void run_block(uint64_t index, size_t shared, size_t shared_limit) {
  begin_block(index);
  begin_shared(shared, shared_limit);
  const unsigned thread = pop_ready();
  block.threads[thread].fiber = take_fiber(thread);
  become(thread);
  switch_fiber(host, *block.threads[thread].fiber, false);
  const char* damage = failure.error == cudaSuccess ? check_shared() : nullptr;
  if (damage != nullptr) {
    failure.error = cudaErrorIllegalAddress;
    snprintf(failure.text, sizeof failure.text, "kernel %s, block (%u, %u, %u): %s", kernel_name, blockIdx.x,
             blockIdx.y, blockIdx.z, damage);
  }
}

void reset_fibers() {
  for (Fiber& fiber : fibers) {
    if (fiber.stack != nullptr) abandon(fiber);
  }
  free_count = 0;
  for (Fiber& fiber : fibers) free_fibers[free_count++] = &fiber;
}

uint64_t common_divisor(uint64_t a, uint64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

void begin_grid(const Kernel& kernel, const cudaLaunchConfig_t& config, const char* name,
                const Scheduling& scheduling) {
  if (free_count < 0) reset_fibers();
  adopt_thread(host);
  kernel_run = &kernel;
  kernel_name = name;
  failure = {};
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  block.order = scheduling.order;
  block.random = Random(scheduling.seed);
  block.counters = {};
  block.tracks_races = detects_races();
  block.count = blockDim.x * blockDim.y * blockDim.z;
  for (unsigned i = 0; i < block.count; i++) {
    block.threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
  }
}

}  // namespace

const BlockCounters& block_counters() { return block.counters; }
bool kernel_running() { return running; }
const Fiber& running_fiber() { return *block.threads[running_thread].fiber; }

Fiber* take_fiber(unsigned thread) {
  Fiber* fiber = block.tracks_races ? &fibers[fiber_set * max_threads + thread] : free_fibers[--free_count];
  if (fiber->stack_pointer == nullptr) prepare(*fiber, thread_entry);
  return fiber;
}

void end_block() {
  if (block.live > 0) {
    stop_kernel(cudaErrorLaunchFailure, "deadlock: %u threads wait and none can go on (a divergent barrier?)",
                block.live);
  }
  switch_fiber(*block.threads[running_thread].fiber, host, false);
}

void stop_kernel(cudaError_t error, const char* format, ...) {
  const Thread& self = block.threads[running_thread];
  failure.error = error;
  int used =
      snprintf(failure.text, sizeof failure.text, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u)",
               kernel_name, blockIdx.x, blockIdx.y, blockIdx.z, self.index.x, self.index.y, self.index.z);
  if (self.site.line != 0) {
    used += snprintf(failure.text + used, sizeof failure.text - static_cast<size_t>(used), ", %s %s:%d",
                     self.state == ThreadState::ready ? "after" : "at", self.site.file, self.site.line);
  }
  used += snprintf(failure.text + used, sizeof failure.text - static_cast<size_t>(used), ": ");
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure.text + used, sizeof failure.text - static_cast<size_t>(used), format, arguments);
  va_end(arguments);
  race_release(&end_mark);
  switch_fiber(*self.fiber, host, true);
  abort();
}

Failure run_grid(const Kernel& kernel, const cudaLaunchConfig_t& config, const char* name,
                 const Scheduling& scheduling) {
  begin_grid(kernel, config, name, scheduling);
  const uint64_t blocks = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  uint64_t start = 0, stride = 1;
  if (block.order == Order::random) {
    start = block.random.below(blocks);
    do {
      stride = 1 + block.random.below(blocks);
    } while (common_divisor(stride, blocks) != 1);
  }
  running = true;
  race_release(&start_mark);  // once: blocks are not ordered among themselves
  const bool up = block.order == Order::ascending || block.order == Order::random;
  for (uint64_t i = 0; i < blocks && failure.error == cudaSuccess; i++) {
    run_block(up ? (start + i * stride) % blocks : blocks - 1 - i, config.dynamicSmemBytes,
              scheduling.shared_limit);
  }
  race_acquire(&end_mark);
  running = false;
  end_shared();
  if (failure.error != cudaSuccess) reset_fibers();
  return failure;
}

int block_barrier(bool predicate, Site site) {
  Thread& self = block.threads[running_thread];
  self.site = site;
  self.state = ThreadState::at_barrier;
  block.counters.barriers++;
  if (block.live < block.count) {
    stop_kernel(cudaErrorLaunchFailure, "__syncthreads after %u threads of the block have ended",
                block.count - block.live);
  }
  if (block.at_barrier == 0) {
    block.barrier = site;
    block.votes = 0;
  } else if (!same_site(block.barrier, site)) {
    stop_kernel(cudaErrorLaunchFailure, "divergent barrier: other threads wait at %s:%d", block.barrier.file,
                block.barrier.line);
  }
  if (block.tracks_races) race_release(block_mark(barrier_mark));
  block.at_barrier++;
  block.votes += predicate ? 1 : 0;
  if (block.at_barrier == block.live) {
    block.at_barrier = 0;
    block.result = block.votes;
    wake(0, block.count,
         [](unsigned thread) { return block.threads[thread].state == ThreadState::at_barrier; });
  }
  next_thread();
  self.state = ThreadState::ready;
  if (block.tracks_races) race_acquire(block_mark(barrier_mark));
  return block.result;
}

void begin_atomic(void* address) {
  if (block.order == Order::random && block.random.below(8) == 0) {
    push_ready(running_thread);
    next_thread();
  }
  if (!block.tracks_races) return;
  race_pass(block_mark(fence_mark), address);
  block.atomics[block.atomic_count++ % std::size(block.atomics)] = address;
}

void fence() {
  if (!block.tracks_races) return;
  race_release(block_mark(fence_mark));
  for (unsigned i = 0; i < std::min<size_t>(block.atomic_count, std::size(block.atomics)); i++) {
    race_acquire(block.atomics[i]);
  }
}

void stop_at_misaligned(const void* address, size_t bytes) {
  stop_kernel(cudaErrorMisalignedAddress, "a load or store of %zu bytes at %p, which is not aligned", bytes,
              address);
}

}  // namespace emulator
