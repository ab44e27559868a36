// Calls about streams, events and launches.
#include <algorithm>

#include "cuda/emulator/call.h"
#include "cuda/emulator/execute.h"

using namespace emulator;

// An event belongs to a device and stands for the moment of its last record.
struct CUevent_st {
  int device;
  bool timed;
  std::shared_ptr<Moment> moment;
};

namespace {

std::vector<std::unique_ptr<CUevent_st>> events;

bool known(cudaEvent_t event) {
  return std::any_of(events.begin(), events.end(), [event](const auto& e) { return e.get() == event; });
}

cudaStream_t find(cudaStream_t stream) { return queue::resolve(stream, current_device()); }

}  // namespace

namespace emulator {

void reset_events() { events.clear(); }
int event_count() { return static_cast<int>(events.size()); }

cudaError_t launch(const cudaLaunchConfig_t& config, Kernel kernel, const Argument* arguments, int count) {
  return call(Operation::launch, [&] {
    auto* stream = find(config.stream);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->device != current_device()) {
      return fail(cudaErrorInvalidResourceHandle, "a launch into a stream of device " +
                                                      std::to_string(stream->device) + " while device " +
                                                      std::to_string(current_device()) + " is set");
    }
    if (const auto error = check_launch(config, kernel, stream->device); error != cudaSuccess) return error;
    if (const auto error = check_arguments(kernel, arguments, count, stream->device); error != cudaSuccess)
      return error;
    state().counters.launches++;
    Work work;
    work.kind = Work::Kind::kernel;
    work.kernel = std::move(kernel);
    work.config = config;
    queue::push(stream, std::move(work));
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
  return call(Operation::any, [&] {
    if (stream == nullptr || find(stream) == nullptr) return cudaErrorInvalidResourceHandle;
    queue::destroy(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(Operation::synchronization, [&] {
    auto* target = find(stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    queue::wait_for_stream(target);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(Operation::any, [&] {
    auto* target = find(stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (!target->pending.empty()) queue::poll(target);
    return target->pending.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call(Operation::event, [&] {
    auto* target = find(stream);
    if (target == nullptr || !known(event)) return cudaErrorInvalidResourceHandle;
    if (flags != 0) return cudaErrorInvalidValue;
    if (event->moment == nullptr) return cudaSuccess;  // never recorded: nothing to wait for
    Work work;
    work.kind = Work::Kind::wait;
    work.moment = event->moment;
    queue::push(target, std::move(work));
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(Operation::event, [&] {
    if ((flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) return cudaErrorInvalidValue;
    events.push_back(std::make_unique<CUevent_st>(
        CUevent_st{current_device(), (flags & cudaEventDisableTiming) == 0, nullptr}));
    *event = events.back().get();
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(Operation::any, [&] {
    const auto removed =
        std::remove_if(events.begin(), events.end(), [event](const auto& e) { return e.get() == event; });
    if (removed == events.end()) return cudaErrorInvalidResourceHandle;
    events.erase(removed, events.end());
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(Operation::event, [&] {
    auto* target = find(stream);
    if (target == nullptr || !known(event) || event->device != target->device)
      return cudaErrorInvalidResourceHandle;
    event->moment = std::make_shared<Moment>();
    event->moment->stream = target;
    Work work;
    work.kind = Work::Kind::record;
    work.moment = event->moment;
    queue::push(target, std::move(work));
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(Operation::synchronization, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (event->moment != nullptr) queue::wait_for_moment(event->moment);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(Operation::any, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
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
