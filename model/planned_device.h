// CUDA devices of which nothing but the memory is known: to plan for one that is not in this machine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ops/device.h"

namespace rwkv {

/// Tells what a plan asks (id(), description(), free_memory(), workspace_bytes()) as cuda:`index` would with
/// so many bytes free; whatever else is asked of it throws Error.
std::unique_ptr<Device> plan_cuda_device(int index, uint64_t free_memory);

}  // namespace rwkv
