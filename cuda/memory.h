// Memory of CUDA devices and host memory that they copy in place. What a Buffer holds is given back after the
// device's queued work, which may still use it; that never throws.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/buffer.h"

namespace rwkv::cuda {

/// Makes the device that of this thread's next calls: every function that calls the runtime begins so.
void set_device(int device);

/// Bytes that can still be allocated on the device.
uint64_t free_memory(int device);

/// Copies and waits for that, but for no queue: in the default stream, where the runtime stages pageable
/// memory. Throws Error.
void copy_and_wait(int device, std::byte* to, const std::byte* from, size_t bytes, cudaMemcpyKind kind);

/// Memory of the device, filled with zeros, aligned to 256 bytes, never at a null address. Throws Error.
Buffer allocate(int device, size_t bytes);

/// Pinned host memory, for this and all other devices. Throws Error.
Buffer allocate_pinned(int device, size_t bytes);

/// Pins the pages around existing memory, for reading; empty when the driver refuses.
Buffer pin(int device, std::span<const std::byte> bytes);

}  // namespace rwkv::cuda
