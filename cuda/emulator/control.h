// What tests ask of the emulated device: how it behaves, what it counted, what it found, what shall fail.
//
// The device is hostile within what the CUDA runtime allows. Work in streams runs when the policy says, never
// at the call; copies from pinned memory read it when they run. cudaFree, which on a device waits for all
// work, does not: a program must not rely on that. Fresh device, pinned and shared memory holds 0xFF bytes
// (NaN in every float type). Device memory is out of the host's reach, and a kernel's access outside live
// allocations, a barrier that not all threads reach, a warp primitive that a named lane does not reach, and
// memory freed under pending work end the launch with an error that stays, as on a device.
//
// While a stream is captured, whatever may be forbidden is: in the strict modes to allocate, release or
// register memory, to ask or wait for events, to wait for a device; to wait for an event from outside the
// capture, even one never recorded; to copy pageable memory. The nodes of a launched graph are work of
// streams, in any order that the graph allows.
//
// Everything follows from the settings: the same seed gives the same run.
//
// Calls may come from several host threads; they run one after another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/emulator/include/cuda_runtime.h"

namespace emulator {

/// Which thread of a block runs first, and which goes on first after a barrier or a warp primitive. By warp:
/// the last warp first, and each as far as it gets. Random: any thread that can run, also at atomics. Blocks
/// run one after another, in ascending, descending or random order.
enum class Order { ascending, descending, by_warp, random };

/// When work in streams runs. Eager: at the call. Late: when it is waited for, and nothing else. Rush: when
/// something is waited for, everything else first as far as it may. Random: some at each call, by changing
/// priorities of the streams.
enum class Streams { eager, late, rush, random };

struct Settings {
  uint64_t seed = 1;
  Order order = Order::random;
  Streams streams = Streams::random;
  int devices = 1;
  bool driver = true;                // false: every call that needs it fails with cudaErrorInsufficientDriver
  size_t device_memory = 1u << 30;   // bytes of each device
  size_t shared_memory = 64 * 1024;  // bytes that a block may have by cudaFuncSetAttribute; 48 KiB without
  bool register_read_only = true;    // whether cudaHostRegister takes cudaHostRegisterReadOnly
  bool peer_access = true;           // whether devices can reach each other's memory
  double device_bandwidth =
      1e12;                      // simulated bytes per second of memory, for what kernels load (see Counters)
  double link_bandwidth = 25e9;  // simulated bytes per second of copies between host and device, or devices
  double kernel_seconds = 2e-6;  // simulated time of a kernel besides its loads
  double graph_kernel_seconds = 1e-6;  // the same in a graph
  bool print_reports = true;           // reports go to standard error too
};

/// The settings that the variable CUDA_EMULATOR asks for, such as "seed=7 order=random streams=late". A
/// report quotes what to put there to see it again. Throws std::invalid_argument for other words.
Settings settings_from_environment();

/// Begins anew: all memory, streams and events are gone, counters are zero, errors and planned failures
/// forgotten. Without a call, settings_from_environment() hold.
void configure(const Settings& settings);
Settings settings();

struct Counters {
  uint64_t launches = 0;  // of kernels, those in launched graphs too
  uint64_t graph_launches = 0;
  uint64_t host_to_device_bytes = 0;
  uint64_t device_to_host_bytes = 0;
  uint64_t device_to_device_bytes = 0;  // within a device
  uint64_t peer_bytes = 0;              // between devices
  uint64_t pageable_copies = 0;         // asynchronous copies that could not be asynchronous
  uint64_t kernel_load_bytes = 0;       // loaded by __ldg, __ldcs, __ldcg and __ldca
  uint64_t barriers = 0;                // threads that reached a __syncthreads
  uint64_t warp_primitives = 0;         // threads that reached one
  size_t peak_device_bytes = 0;         // the most memory that one device had allocated
};
Counters counters();
/// The counters, and the simulated clock, begin at zero.
void reset_counters();

/// What exists now. All zero: nothing leaked.
struct Live {
  int device_allocations = 0;
  int pinned_allocations = 0;
  int registrations = 0;
  int streams = 0;
  int events = 0;
  int graphs = 0;
  int executables = 0;  // executable graphs
  [[nodiscard]] int total() const {
    return device_allocations + pinned_allocations + registrations + streams + events + graphs + executables;
  }
};
Live live();

/// Seconds on the simulated clock: the longest chain of copies, kernels and waits of the host. Copies to the
/// device, copies from it, and kernels each have an engine per device that does one thing at a time, in the
/// order of the calls. Waits for all work to end.
double simulated_seconds();

/// What was wrong first, in one line that names kernel, block, thread and place; "" when nothing was.
std::string report();

enum class Operation {
  any,
  device_allocation,
  pinned_allocation,
  registration,
  copy,
  launch,  // of a kernel or a graph
  graph,   // cudaStreamBeginCapture, cudaStreamEndCapture, cudaGraphInstantiate
  stream,
  event,
  synchronization,
};
/// The n-th such call from now (1: the next) returns `error` and does nothing, unless it gives something back
/// or ends a capture; for a launch or copy with cudaErrorLaunchFailure or cudaErrorIllegalAddress the error
/// stays.
void fail_call(Operation operation, int n, cudaError_t error);
/// How many such calls there were since the settings, so that a test can let each of them fail.
int calls(Operation operation);

/// Whether this thread is in a call of the runtime: what is allocated there is not the program's doing.
bool inside_runtime();

}  // namespace emulator
