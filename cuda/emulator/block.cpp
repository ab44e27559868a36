#include "cuda/emulator/block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda/emulator/block_state.h"
#include "cuda/emulator/random.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

uint64_t loaded_bytes = 0;

namespace {

Block block;
// The thread sanitizer needs a fiber per thread, and others for the next block, to see races between blocks.
Fiber fibers[2 * max_threads];
Fiber* free_fibers[2 * max_threads];
int free_count = -1, fiber_set = 0;
Fiber host;
bool running = false;
const Kernel* kernel_run;
const char* kernel_name;
Failure failure;
Order order;
Random random_numbers;
BlockCounters block_counts;
char start_mark, end_mark;  // addresses at which the thread sanitizer sees an order
constexpr int barrier_mark = 0, fence_mark = 1, first_warp_mark = 2;  // and those of a block

void push_ready(int thread) {
  const bool front = order == Order::by_warp;
  if (front) block.first = (block.first + max_threads - 1) % max_threads;
  block.ready[front ? block.first : (block.first + block.ready_count) % max_threads] = thread;
  block.ready_count++;
  block.threads[thread].state = ThreadState::ready;
}

int pop_ready() {
  if (order == Order::random) {
    int& chosen =
        block.ready[(block.first +
                     static_cast<int>(random_numbers.below(static_cast<uint64_t>(block.ready_count)))) %
                    max_threads];
    const int other = block.ready[block.first];
    block.ready[block.first] = chosen;
    chosen = other;
  }
  const int thread = block.ready[block.first];
  block.first = (block.first + 1) % max_threads;
  block.ready_count--;
  return thread;
}

// Makes these threads ready. Pushed to the front, the last pushed comes first.
template <class Choose>
void wake(int begin, int end, Choose choose) {
  for (int i = 0; i < end - begin; i++) {
    const int thread = order == Order::ascending || order == Order::random ? begin + i : end - 1 - i;
    if (choose(thread)) push_ready(thread);
  }
}

Fiber* take_fiber(int thread);
void thread_entry();

void become(int thread) {
  block.current = thread;
  threadIdx = block.threads[thread].index;
}

void leave_to_host(Fiber& from) { switch_fiber(from, host, true); }

// Lets the next thread go on; the running one waits, or has ended.
void next_thread(bool finished) {
  Thread& self = block.threads[block.current];
  Fiber& from = *self.fiber;
  race_release(&end_mark);  // whatever becomes of this thread, the end of the grid follows what it did
  if (block.ready_count == 0) {
    if (block.live > 0)
      stop_kernel(cudaErrorLaunchFailure,
                  "deadlock: %d threads wait and none can go on (a divergent barrier?)", block.live);
    leave_to_host(from);
    abort();
  }
  const int next = pop_ready();
  if (next == block.current && !finished) return;
  Thread& to = block.threads[next];
  if (to.fiber == nullptr) to.fiber = take_fiber(next);
  become(next);
  switch_fiber(from, *to.fiber, finished);
}

Fiber* take_fiber(int thread) {
  Fiber* fiber = detects_races() ? &fibers[fiber_set * max_threads + thread] : free_fibers[--free_count];
  prepare(*fiber, thread_entry);
  return fiber;
}

void end_thread() {
  Thread& self = block.threads[block.current];
  Warp& warp = block.warps[block.current / 32];
  const unsigned bit = 1u << (block.current % 32);
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

void thread_entry() {
  begin_fiber();
  for (;;) {
    race_acquire(&start_mark);
    kernel_run->run(kernel_run->call.get());
    end_thread();
    Fiber* fiber = block.threads[block.current].fiber;
    // A thread that has not begun takes over this stack: most threads of most kernels need no switch.
    if (!detects_races() && block.ready_count > 0) {
      const int next = pop_ready();
      if (block.threads[next].fiber == nullptr) {
        block.threads[next].fiber = fiber;
        become(next);
        continue;
      }
      block.first = (block.first + max_threads - 1) % max_threads;
      block.ready[block.first] = next;
      block.ready_count++;
    }
    if (!detects_races()) free_fibers[free_count++] = fiber;
    next_thread(true);
    abort();
  }
}

void begin_block(uint64_t index) {
  const uint64_t row = index / gridDim.x;
  blockIdx = {static_cast<unsigned>(index % gridDim.x), static_cast<unsigned>(row % gridDim.y),
              static_cast<unsigned>(row / gridDim.y)};
  block.live = block.count;
  block.first = block.ready_count = block.at_barrier = block.votes = 0;
  block.atomic_count = 0;
  for (int i = 0; i < block.count; i++) {
    const auto n = static_cast<unsigned>(i);
    block.threads[i] = {nullptr,
                        ThreadState::ready,
                        {"its start", 0},
                        {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y}};
  }
  for (int i = 0; i * 32 < block.count; i++) {
    const int lanes = block.count - i * 32;
    block.warps[i].live = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
    block.warps[i].used = 0;
  }
  fiber_set = 1 - fiber_set;
  if (detects_races()) {  // here: a fiber's maker is ordered before it
    for (int i = 0; i < block.count; i++) prepare(fibers[fiber_set * max_threads + i], thread_entry);
  }
  if (order == Order::by_warp) {  // the last pushed begins: the last warp
    for (int i = 0; i < block.count; i += 32)
      wake(i, std::min(i + 32, block.count), [](int) { return true; });
  } else {
    wake(0, block.count, [](int) { return true; });
  }
}

void run_block(uint64_t index, size_t shared, size_t shared_limit) {
  begin_block(index);
  begin_shared(shared, shared_limit);
  const int thread = pop_ready();
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

bool same_site(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

Rendezvous& find_rendezvous(Warp& warp, unsigned mask, Meeting meeting, Site site) {
  for (int i = 0; i < warp.used; i++) {
    Rendezvous& known = warp.meetings[i];
    if (!known.open || (known.mask & mask) == 0) continue;
    if (known.mask == mask && known.meeting == meeting && same_site(known.site, site)) return known;
    // A lane of this mask waits elsewhere for this lane: neither can go on.
    if ((known.mask >> (block.current % 32) & 1) != 0 && (known.arrived & mask) != 0) {
      stop_kernel(
          cudaErrorLaunchFailure,
          "a warp primitive with mask 0x%08x, while lanes wait for this one with mask 0x%08x at %s:%d", mask,
          known.mask, known.site.file, known.site.line);
    }
  }
  Rendezvous* fresh = nullptr;
  for (int i = 0; i < warp.used && fresh == nullptr; i++) {
    if (!warp.meetings[i].open && warp.meetings[i].readers == 0) fresh = &warp.meetings[i];
  }
  if (fresh == nullptr) fresh = &warp.meetings[warp.used++];
  fresh->open = true;
  fresh->readers = 0;
  fresh->mask = mask;
  fresh->arrived = fresh->votes = 0;
  fresh->meeting = meeting;
  fresh->site = site;
  return *fresh;
}

Rendezvous& meet_warp(unsigned mask, uint64_t value, bool vote, Meeting meeting, Site site) {
  const int lane_index = block.current % 32, base = block.current - lane_index;
  Warp& warp = block.warps[block.current / 32];
  Thread& self = block.threads[block.current];
  self.site = site;
  self.state = ThreadState::at_warp;
  block_counts.warp_primitives++;
  if ((mask >> lane_index & 1) == 0)
    stop_kernel(cudaErrorLaunchFailure, "a warp primitive whose mask 0x%08x lacks the calling lane %d", mask,
                lane_index);
  if ((mask & ~warp.live) != 0) {
    stop_kernel(cudaErrorLaunchFailure,
                "a warp primitive whose mask 0x%08x names lanes that ended or never were: 0x%08x", mask,
                mask & ~warp.live);
  }
  Rendezvous& here = find_rendezvous(warp, mask, meeting, site);
  here.values[lane_index] = value;
  here.votes |= static_cast<unsigned>(vote) << lane_index;
  here.arrived |= 1u << lane_index;
  here.readers++;
  // Only __syncwarp orders memory: a shuffle used as a fence is a race.
  void* mark = block_mark(
      static_cast<size_t>(first_warp_mark + block.current / 32 * max_meetings + (&here - warp.meetings)));
  if (meeting == Meeting::sync) race_release(mark);
  if (here.arrived == mask) {
    here.open = false;
    wake(base, std::min(base + 32, block.count),
         [&](int thread) { return (mask >> (thread % 32) & 1) != 0; });
  }
  next_thread(false);
  if (meeting == Meeting::sync) race_acquire(mark);
  here.readers--;
  return here;
}

}  // namespace

BlockCounters& block_counters() { return block_counts; }
bool kernel_running() { return running; }
const Fiber& running_fiber() { return *block.threads[block.current].fiber; }

void stop_kernel(cudaError_t error, const char* format, ...) {
  const Thread& self = block.threads[block.current];
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
  leave_to_host(*self.fiber);
  abort();
}

Failure run_grid(const Kernel& kernel, const cudaLaunchConfig_t& config, const char* name,
                 const Scheduling& scheduling) {
  if (free_count < 0) reset_fibers();
  adopt_thread(host);
  kernel_run = &kernel;
  kernel_name = name;
  failure = {};
  order = scheduling.order;
  random_numbers = Random(scheduling.seed);
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  block.count = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  const uint64_t blocks = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  uint64_t start = 0, stride = 1;
  if (order == Order::random) {
    start = random_numbers.below(blocks);
    do {
      stride = 1 + random_numbers.below(blocks);
    } while (common_divisor(stride, blocks) != 1);
  }
  running = true;
  race_release(&start_mark);  // once: blocks are not ordered among themselves
  for (uint64_t i = 0; i < blocks && failure.error == cudaSuccess; i++) {
    const bool up = order == Order::ascending || order == Order::random;
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
  Thread& self = block.threads[block.current];
  self.site = site;
  self.state = ThreadState::at_barrier;
  block_counts.barriers++;
  if (block.live < block.count) {
    stop_kernel(cudaErrorLaunchFailure, "__syncthreads after %d threads of the block have ended",
                block.count - block.live);
  }
  if (block.at_barrier == 0) {
    block.barrier = site;
    block.votes = 0;
  } else if (!same_site(block.barrier, site)) {
    stop_kernel(cudaErrorLaunchFailure, "divergent barrier: other threads wait at %s:%d", block.barrier.file,
                block.barrier.line);
  }
  race_release(block_mark(barrier_mark));
  block.at_barrier++;
  block.votes += predicate ? 1 : 0;
  if (block.at_barrier == block.live) {
    block.at_barrier = 0;
    block.result = block.votes;
    wake(0, block.count, [](int thread) { return block.threads[thread].state == ThreadState::at_barrier; });
  }
  next_thread(false);
  race_acquire(block_mark(barrier_mark));
  return block.result;
}

uint64_t warp_exchange(unsigned mask, uint64_t value, int source, Meeting meeting, Site site) {
  const Rendezvous& met = meet_warp(mask, value, false, meeting, site);
  return (met.mask >> (source & 31) & 1) != 0 ? met.values[source & 31] : ~uint64_t{0};
}

unsigned warp_ballot(unsigned mask, bool predicate, Site site) {
  return meet_warp(mask, 0, predicate, Meeting::ballot, site).votes;
}

void begin_atomic(void* address) {
  if (order == Order::random && random_numbers.below(8) == 0) {
    push_ready(block.current);
    next_thread(false);
  }
  if (!detects_races()) return;
  race_pass(block_mark(fence_mark), address);
  block.atomics[block.atomic_count++ % std::size(block.atomics)] = address;
}

void fence() {
  if (!detects_races()) return;
  race_release(block_mark(fence_mark));
  for (unsigned i = 0; i < std::min<size_t>(block.atomic_count, std::size(block.atomics)); i++) {
    race_acquire(block.atomics[i]);
  }
}

void stop_at_misaligned(const void* address, size_t bytes) {
  stop_kernel(cudaErrorMisalignedAddress, "a load or store of %zu bytes at %p, which is not aligned", bytes,
              address);
}

int lane() { return block.current % 32; }
int block_threads() { return block.count; }

}  // namespace emulator
