// CUDA devices. Which of the three implementations this is decides the build: the toolkit's (make CUDA=1),
// the emulated device (make CUDA=emulated), or none (make CUDA=0, cuda/absent.cpp).
#pragma once

#include <memory>
#include <string>

#include "ops/device.h"

namespace rwkv::cuda {

/// Devices that can be opened; 0 when something is missing.
int device_count();

/// Why there is no device, and what to do: "" when there is one. One line.
std::string missing();

/// Device::id() is index + 1. Throws Error.
std::unique_ptr<Device> open(int index);

}  // namespace rwkv::cuda
