// Calls about memory and copies.
#include <cstring>

#include "cuda/emulator/call.h"
#include "cuda/emulator/capture.h"
#include "cuda/emulator/fault.h"

using namespace emulator;

namespace {

cudaError_t allocate_pinned(void** pointer, size_t bytes, unsigned flags) {
  return call(Operation::pinned_allocation, [&] {
    *pointer = nullptr;
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    if ((flags & ~(cudaHostAllocPortable | cudaHostAllocWriteCombined)) != 0) return cudaErrorInvalidValue;
    if (bytes == 0) return cudaSuccess;
    catch_faults();
    *pointer = memory::allocate(memory::pinned, bytes);
    return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

// Where one side of a copy lies.
struct Side {
  bool device;
  int number;
};

// An error names what is wrong with the bytes at `pointer`.
cudaError_t find_side(const void* pointer, size_t bytes, Side& side) {
  if (!memory::owns(pointer)) {
    side = {false, 0};
    if (bytes > 0 && pointer == nullptr) return fail(cudaErrorInvalidValue, "a copy with a null pointer");
    if (bytes > 0 && memory::is_partly_registered(pointer, bytes)) {
      return fail(cudaErrorInvalidValue, "a copy of " + std::to_string(bytes) +
                                             " bytes of host memory that is registered in part only");
    }
    return cudaSuccess;
  }
  const memory::Allocation* a = memory::find(pointer);
  side = {a == nullptr || a->space != memory::pinned, a == nullptr ? 0 : a->space};
  if (a != nullptr && memory::holds(a->space, pointer, bytes)) return cudaSuccess;
  return fail(cudaErrorInvalidValue, "a copy or fill of " + std::to_string(bytes) + " bytes that begins at " +
                                         memory::describe(pointer) + " and is not inside it");
}

bool allows(cudaMemcpyKind kind, bool from_device, bool to_device) {
  return kind == cudaMemcpyDefault ||
         ((kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) == from_device &&
          (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) == to_device);
}

void choose_route(Work& work, Side to, Side from) {
  const Settings& s = state().settings;
  const bool inside = from.device && to.device && from.number == to.number;
  work.engine = inside ? Engine::kernels : from.device ? Engine::from_device : Engine::to_device;
  work.seconds = static_cast<double>(work.bytes) / (inside ? s.device_bandwidth / 2 : s.link_bandwidth);
  if (inside) {
    work.counter = &Counters::device_to_device_bytes;
  } else if (from.device && to.device) {
    work.counter = &Counters::peer_bytes;
  } else if (from.device) {
    work.counter = &Counters::device_to_host_bytes;
  } else if (to.device) {
    work.counter = &Counters::host_to_device_bytes;
  }
}

cudaError_t enqueue_copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle,
                         bool asynchronous) {
  cudaStream_t stream = nullptr;
  if (const auto error = capture::use_stream(handle, capture::Use::work, stream); error != cudaSuccess) {
    return error;
  }
  Side target{}, source{};
  if (const auto error = find_side(to, bytes, target); error != cudaSuccess) return error;
  if (const auto error = find_side(from, bytes, source); error != cudaSuccess) return error;
  if (!allows(kind, source.device, target.device)) {
    return fail(cudaErrorInvalidMemcpyDirection,
                "a copy from " + std::string(source.device ? "device" : "host") + " to " +
                    (target.device ? "device" : "host") + " memory, called as kind " + std::to_string(kind));
  }
  if (!target.device && memory::is_read_only(to)) {
    return fail(cudaErrorInvalidValue, "a copy to memory that is registered for reading only");
  }
  const bool pageable_source = !source.device && !memory::is_pinned(from, bytes);
  const bool pageable_target = !target.device && !memory::is_pinned(to, bytes);
  if (stream->capture != nullptr && (pageable_source || pageable_target)) {
    return capture::invalidate(stream->capture, cudaErrorStreamCaptureUnsupported);
  }
  Work work;
  work.to = static_cast<char*>(to);
  work.from = static_cast<const char*>(from);
  work.bytes = bytes;
  work.pinned_host = !pageable_source && !pageable_target;
  if (pageable_source && target.device) {
    work.staged = std::make_shared<std::vector<char>>(work.from, work.from + bytes);
  }
  choose_route(work, target, source);
  capture::submit(stream, std::move(work));
  if (asynchronous && (pageable_source || pageable_target)) state().counters.pageable_copies++;
  // A copy into pageable memory returns when it is done, and so does one between host memories.
  if (pageable_target || !asynchronous) queue::wait_for_stream(stream);
  return cudaSuccess;
}

cudaError_t enqueue_fill(void* pointer, int value, size_t bytes, cudaStream_t handle) {
  cudaStream_t stream = nullptr;
  if (const auto error = capture::use_stream(handle, capture::Use::work, stream); error != cudaSuccess) {
    return error;
  }
  Side side{};
  if (const auto error = find_side(pointer, bytes, side); error != cudaSuccess) return error;
  if (!side.device && bytes > 0) return fail(cudaErrorInvalidValue, "cudaMemset of host memory");
  Work work;
  work.kind = Work::Kind::fill;
  work.to = static_cast<char*>(pointer);
  work.bytes = bytes;
  work.value = value;
  work.seconds = static_cast<double>(bytes) / state().settings.device_bandwidth;
  capture::submit(stream, std::move(work));
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return call(Operation::device_allocation, [&] {
    *pointer = nullptr;
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    if (bytes == 0) return cudaSuccess;
    catch_faults();
    *pointer = memory::allocate(current_device(), bytes);
    return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

// Does not wait for work that uses the memory: programs must not rely on it.
cudaError_t cudaFree(void* pointer) {
  return release_call(Operation::any, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    if (pointer == nullptr || memory::release(pointer, true)) return cudaSuccess;
    return fail(cudaErrorInvalidValue, "cudaFree of " + memory::describe(pointer));
  });
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return allocate_pinned(pointer, bytes, 0); }

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  return allocate_pinned(pointer, bytes, flags);
}

cudaError_t cudaFreeHost(void* pointer) {
  return release_call(Operation::any, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    if (pointer == nullptr || memory::release(pointer, false)) return cudaSuccess;
    return fail(cudaErrorInvalidValue, "cudaFreeHost of " + memory::describe(pointer));
  });
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned flags) {
  return call(Operation::registration, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    if (pointer == nullptr || bytes == 0 || memory::owns(pointer)) return cudaErrorInvalidValue;
    if ((flags & ~(cudaHostRegisterPortable | cudaHostRegisterReadOnly)) != 0) return cudaErrorInvalidValue;
    const bool read_only = (flags & cudaHostRegisterReadOnly) != 0;
    if (read_only && !state().settings.register_read_only) return cudaErrorNotSupported;
    if (!read_only && !memory::is_writable(pointer, bytes)) return cudaErrorInvalidValue;
    return memory::register_pages(pointer, bytes, read_only) ? cudaSuccess
                                                             : cudaErrorHostMemoryAlreadyRegistered;
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return release_call(Operation::any, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    return memory::unregister_pages(pointer) ? cudaSuccess : cudaErrorHostMemoryNotRegistered;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call(Operation::copy, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    return enqueue_copy(to, from, bytes, kind, nullptr, false);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call(Operation::copy, [&] { return enqueue_copy(to, from, bytes, kind, stream, true); });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  return call(Operation::copy, [&] {
    if (!memory::holds(to_device, to, bytes) || !memory::holds(from_device, from, bytes)) {
      return fail(cudaErrorInvalidValue, "cudaMemcpyPeerAsync to " + memory::describe(to) + " from " +
                                             memory::describe(from) + ": not of the devices named");
    }
    return enqueue_copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream, true);
  });
}

cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
  return call(Operation::copy, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    return enqueue_fill(pointer, value, bytes, nullptr);
  });
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  return call(Operation::copy, [&] { return enqueue_fill(pointer, value, bytes, stream); });
}
