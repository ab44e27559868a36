// Calls about streams, events and launches.
#include <algorithm>

#include "cuda/emulator/call.h"
#include "cuda/emulator/capture.h"
#include "cuda/emulator/execute.h"

using namespace emulator;

// An event belongs to a device and stands for the moment of its last record, or for nodes of a capture.
struct CUevent_st {
  int device;
  bool timed;
  std::shared_ptr<Moment> moment;
  std::shared_ptr<Capture> capture;
  std::vector<int> nodes;
};

namespace {

std::vector<std::unique_ptr<CUevent_st>> events;

bool known(cudaEvent_t event) {
  return std::any_of(events.begin(), events.end(), [event](const auto& e) { return e.get() == event; });
}

using capture::Use;

// An event can be asked and waited for by the host unless captures forbid it.
cudaError_t check_event(cudaEvent_t event) {
  if (!known(event)) return cudaErrorInvalidResourceHandle;
  if (event->capture == nullptr) return capture::check_unsafe();
  return event->capture->ended ? cudaErrorCapturedEvent
                               : capture::invalidate(event->capture, cudaErrorCapturedEvent);
}

}  // namespace

namespace emulator {

void reset_events() { events.clear(); }
int event_count() { return static_cast<int>(events.size()); }

cudaError_t launch(const cudaLaunchConfig_t& config, Kernel kernel, const Argument* arguments, int count) {
  return call(Operation::launch, [&] {
    cudaStream_t stream = nullptr;
    if (const auto error = capture::use_stream(config.stream, Use::work, stream); error != cudaSuccess) {
      return error;
    }
    if (stream->device != current_device()) {
      return fail(cudaErrorInvalidResourceHandle, "a launch into a stream of device " +
                                                      std::to_string(stream->device) + " while device " +
                                                      std::to_string(current_device()) + " is set");
    }
    if (const auto error = check_launch(config, kernel, stream->device); error != cudaSuccess) return error;
    if (const auto error = check_arguments(kernel, arguments, count, stream->device); error != cudaSuccess)
      return error;
    Work work;
    work.kind = Work::Kind::kernel;
    work.kernel = std::move(kernel);
    work.config = config;
    capture::submit(stream, std::move(work), {arguments, arguments + count});
    return cudaSuccess;
  });
}

}  // namespace emulator

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call(Operation::any, [&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<size_t>(value) > state().settings.shared_memory) {
      return cudaErrorInvalidValue;
    }
    state().dynamic_shared[kernel] = value;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(Operation::stream, [&] {
    if ((flags & ~cudaStreamNonBlocking) != 0) return cudaErrorInvalidValue;
    *stream = queue::create(current_device(), flags != cudaStreamNonBlocking);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return release_call(Operation::any, [&] {
    if (stream == nullptr || queue::resolve(stream, 0) == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) {
      return capture::invalidate(stream->capture, cudaErrorStreamCaptureUnsupported);
    }
    queue::destroy(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(Operation::synchronization, [&] {
    cudaStream_t target = nullptr;
    if (const auto error = capture::use_stream(stream, Use::wait, target); error != cudaSuccess) return error;
    queue::wait_for_stream(target);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(Operation::any, [&] {
    cudaStream_t target = nullptr;
    if (const auto error = capture::use_stream(stream, Use::wait, target); error != cudaSuccess) return error;
    if (!target->pending.empty()) queue::poll(target);
    return target->pending.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call(Operation::event, [&] {
    cudaStream_t target = nullptr;
    if (const auto error = capture::use_stream(stream, Use::work, target); error != cudaSuccess) return error;
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (flags != 0) return cudaErrorInvalidValue;
    if (event->capture != nullptr) return capture::join(target, event->capture, event->nodes);
    if (target->capture != nullptr) {
      return capture::invalidate(target->capture, cudaErrorStreamCaptureIsolation);
    }
    if (event->moment != nullptr) queue::wait(target, event->moment);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(Operation::event, [&] {
    if ((flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) return cudaErrorInvalidValue;
    events.push_back(std::make_unique<CUevent_st>(
        CUevent_st{current_device(), (flags & cudaEventDisableTiming) == 0, nullptr, nullptr, {}}));
    *event = events.back().get();
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return release_call(Operation::any, [&] {
    const auto removed =
        std::remove_if(events.begin(), events.end(), [event](const auto& e) { return e.get() == event; });
    if (removed == events.end()) return cudaErrorInvalidResourceHandle;
    events.erase(removed, events.end());
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(Operation::event, [&] {
    cudaStream_t target = nullptr;
    if (const auto error = capture::use_stream(stream, Use::work, target); error != cudaSuccess) return error;
    if (!known(event) || event->device != target->device) return cudaErrorInvalidResourceHandle;
    event->capture = target->capture;
    event->nodes = target->position;
    event->moment = target->capture == nullptr ? queue::record(target) : nullptr;
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(Operation::synchronization, [&] {
    if (const auto error = check_event(event); error != cudaSuccess) return error;
    if (event->moment != nullptr) queue::wait_for_moment(event->moment);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(Operation::any, [&] {
    if (const auto error = check_event(event); error != cudaSuccess) return error;
    if (event->moment != nullptr && !event->moment->done) queue::poll(event->moment->stream);
    return event->moment == nullptr || event->moment->done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(Operation::any, [&] {
    if (!known(start) || !known(end) || !start->timed || !end->timed || start->moment == nullptr ||
        end->moment == nullptr) {
      return cudaErrorInvalidResourceHandle;
    }
    if (!start->moment->done || !end->moment->done) return cudaErrorNotReady;
    queue::wait_for_all();
    *milliseconds = static_cast<float>((end->moment->seconds - start->moment->seconds) * 1e3);
    return cudaSuccess;
  });
}
