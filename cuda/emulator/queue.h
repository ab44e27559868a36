// Streams: work waits in them until the policy lets it run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulator/clock.h"
#include "cuda/emulator/control.h"
#include "cuda/emulator/launch.h"

namespace emulator {

struct Work {
  enum class Kind : uint8_t { copy, fill, kernel, record, wait };
  Kind kind = Kind::copy;
  uint64_t number = 0;  // in order of the calls
  char* to = nullptr;
  const char* from = nullptr;
  size_t bytes = 0;
  int value = 0;
  bool pinned_host = false;  // the copy's host side was pinned at the call
  bool in_graph = false;
  std::shared_ptr<std::vector<char>> staged;  // what `from` held at the call, where that counts
  Kernel kernel{};
  cudaLaunchConfig_t config{};
  std::shared_ptr<Moment> moment;
  Engine engine = Engine::kernels;
  double seconds = 0;                     // on the engine; a kernel's are known when it has run
  uint64_t Counters::*counter = nullptr;  // to which a copy adds its bytes
  std::shared_ptr<Step> step;
};

struct Capture;

}  // namespace emulator

struct CUstream_st {
  int device = 0;
  bool blocking = true;
  bool is_default = false;
  bool internal = false;  // of an executable graph
  bool destroyed = false;
  uint64_t id = 0;
  uint64_t priority = 0;
  int polls = 0;
  std::deque<emulator::Work> pending;
  // While it is captured: the nodes that its next one comes after.
  std::shared_ptr<emulator::Capture> capture;
  std::vector<int> position;
};

namespace emulator::queue {

void reset(int devices, uint64_t seed);
cudaStream_t create(int device, bool blocking);
/// Its work still runs.
void destroy(cudaStream_t stream);
/// The stream itself, the default stream of the device for null, null for what is no stream.
cudaStream_t resolve(cudaStream_t stream, int device);
int count();

/// Counts the work, and queues it.
void push(cudaStream_t stream, Work work);
/// The moment when what the stream has so far is done.
std::shared_ptr<Moment> record(cudaStream_t stream);
void wait(cudaStream_t stream, const std::shared_ptr<Moment>& moment);

/// What the policy lets run at a call.
void progress();
void wait_for_stream(cudaStream_t stream);
void wait_for_moment(const std::shared_ptr<Moment>& moment);
void wait_for_device(int device);
void wait_for_all();
/// A program that asks again and again sees the work end.
void poll(cudaStream_t stream);

}  // namespace emulator::queue
