// Queues of work on CUDA devices, and events that order them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

namespace rwkv::cuda {

/// A moment in a queue for which other queues and the host can wait. Before it is recorded, nobody waits.
class Event {
 public:
  explicit Event(int device);

  [[nodiscard]] cudaEvent_t get() const { return event_.get(); }
  /// The host waits. Throws Error, also for work of the queue that failed.
  void synchronize() const;

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const;
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

/// A stream. One thread at a time may use it; the functions throw Error.
class Queue {
 public:
  explicit Queue(int device);
  /// Waits for the work.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  [[nodiscard]] int device() const { return device_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }

  /// Host memory must be pinned, and stay until the copy is done.
  void copy(std::byte* to, const std::byte* from, size_t bytes, cudaMemcpyKind kind) const;
  /// The event's device is the queue's.
  void record(const Event& event) const;
  /// What is queued from now on comes after the event, whose device may be another.
  void wait(const Event& event) const;
  /// The host waits for all work.
  void synchronize() const;

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace rwkv::cuda
