#include "cuda/queue.h"

#include "cuda/check.h"
#include "cuda/memory.h"

namespace rwkv::cuda {

Event::Event(int device) {
  set_device(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
  event_.reset(event);
}

void Event::Destroy::operator()(cudaEvent_t event) const {
  cudaEventDestroy(event);
  cudaGetLastError();
}

void Event::synchronize() const { check(cudaEventSynchronize(event_.get()), "finish its work"); }

Queue::Queue(int device) : device_(device) {
  set_device(device);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream");
}

Queue::~Queue() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  cudaGetLastError();
}

void Queue::copy(std::byte* to, const std::byte* from, size_t bytes, cudaMemcpyKind kind) const {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "copy memory");
}

void Queue::record(const Event& event) const {
  check(cudaEventRecord(event.get(), stream_), "record an event");
}

void Queue::wait(const Event& event) const {
  check(cudaStreamWaitEvent(stream_, event.get(), 0), "wait for an event");
}

void Queue::synchronize() const { check(cudaStreamSynchronize(stream_), "finish its work"); }

}  // namespace rwkv::cuda
