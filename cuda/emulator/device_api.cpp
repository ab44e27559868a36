// Calls about devices and errors.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda/emulator/block.h"
#include "cuda/emulator/call.h"
#include "cuda/emulator/capture.h"

using namespace emulator;

namespace {

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};

constexpr ErrorText error_texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorPeerAccessUnsupported, "cudaErrorPeerAccessUnsupported",
     "peer access is not supported between these two devices"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState",
     "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled",
     "peer access is already enabled"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText* find_text(cudaError_t error) {
  for (const ErrorText& known : error_texts) {
    if (known.error == error) return &known;
  }
  return nullptr;
}

// Of a small device of compute capability 7.5.
constexpr int cuda_version = 13000, multiprocessors = 4, memory_bus_bits = 256;
constexpr int resident_threads = 1024, resident_blocks = 16;

// Twice a clock, the bus moves its bits.
int memory_kilohertz() {
  return static_cast<int>(state().settings.device_bandwidth / (memory_bus_bits / 8.0) / 2 / 1e3);
}

bool valid(int device) { return device >= 0 && device < state().settings.devices; }

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* known = find_text(error);
  return known == nullptr ? "unrecognized error code" : known->name;
}

const char* cudaGetErrorString(cudaError_t error) {
  const ErrorText* known = find_text(error);
  return known == nullptr ? "unrecognized error code" : known->text;
}

cudaError_t cudaGetLastError() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  const cudaError_t error = last_error();
  last_error() = state().sticky;
  return error;
}

cudaError_t cudaPeekAtLastError() { return last_error(); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return call(Operation::any, [&] {
    *count = state().settings.devices;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return call(Operation::any, [&] {
    if (!valid(device)) return cudaErrorInvalidDevice;
    current_device() = device;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return call(Operation::any, [&] {
    *device = current_device();
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call(Operation::any, [&] {
    if (!valid(device)) return cudaErrorInvalidDevice;
    const Settings& s = state().settings;
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated device %d", device);
    properties->totalGlobalMem = s.device_memory;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = s.shared_memory;
    properties->major = 7;
    properties->minor = 5;
    properties->warpSize = warpSize;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 0x7fffffff;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->multiProcessorCount = multiprocessors;
    properties->asyncEngineCount = 2;
    properties->unifiedAddressing = 1;
    properties->memoryBusWidth = memory_bus_bits;
    properties->l2CacheSize = 1 << 20;
    properties->maxThreadsPerMultiProcessor = resident_threads;
    properties->sharedMemPerMultiprocessor = s.shared_memory;
    properties->maxBlocksPerMultiProcessor = resident_blocks;
    properties->hostRegisterSupported = 1;
    properties->hostRegisterReadOnlySupported = s.register_read_only ? 1 : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  const struct {
    cudaDeviceAttr attribute;
    int value;
  } values[] = {
      {cudaDevAttrMultiProcessorCount, properties.multiProcessorCount},
      {cudaDevAttrMemoryClockRate, memory_kilohertz()},
      {cudaDevAttrGlobalMemoryBusWidth, properties.memoryBusWidth},
      {cudaDevAttrMaxThreadsPerMultiProcessor, properties.maxThreadsPerMultiProcessor},
      {cudaDevAttrAsyncEngineCount, properties.asyncEngineCount},
      {cudaDevAttrComputeCapabilityMajor, properties.major},
      {cudaDevAttrComputeCapabilityMinor, properties.minor},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(properties.sharedMemPerBlockOptin)},
      {cudaDevAttrHostRegisterSupported, properties.hostRegisterSupported},
      {cudaDevAttrHostRegisterReadOnlySupported, properties.hostRegisterReadOnlySupported},
  };
  for (const auto& known : values) {
    if (known.attribute != attribute) continue;
    *value = known.value;
    return cudaSuccess;
  }
  return remember(cudaErrorInvalidValue);
}

cudaError_t cudaDriverGetVersion(int* version) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  begin_runtime();
  *version = state().settings.driver ? cuda_version : 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = cuda_version;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads,
                                                          size_t dynamic_shared_bytes) {
  return call(Operation::any, [&] {
    if (kernel == nullptr || threads <= 0 || threads > max_threads) return cudaErrorInvalidValue;
    const size_t shared = state().settings.shared_memory / std::max<size_t>(dynamic_shared_bytes, 1);
    const int warps = (threads + warpSize - 1) / warpSize;
    *blocks = std::min(resident_blocks, resident_threads / warpSize / warps);
    *blocks = static_cast<int>(std::min<size_t>(shared, static_cast<size_t>(*blocks)));
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call(Operation::any, [&] {
    *total = state().settings.device_memory;
    *free = *total - memory::used(current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call(Operation::synchronization, [&] {
    if (const auto error = capture::check_device(current_device()); error != cudaSuccess) return error;
    queue::wait_for_device(current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return call(Operation::any, [&] {
    if (!valid(device) || !valid(peer)) return cudaErrorInvalidDevice;
    *can = state().settings.peer_access && device != peer ? 1 : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return call(Operation::any, [&] {
    if (flags != 0) return cudaErrorInvalidValue;
    if (!valid(peer) || peer == current_device()) return cudaErrorInvalidDevice;
    if (!state().settings.peer_access) return cudaErrorPeerAccessUnsupported;
    unsigned& peers = state().peers[static_cast<size_t>(current_device())];
    if ((peers >> peer & 1) != 0) return cudaErrorPeerAccessAlreadyEnabled;
    peers |= 1u << peer;
    return cudaSuccess;
  });
}
