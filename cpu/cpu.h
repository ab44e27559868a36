// The host's processor as a device.
#pragma once

#include <memory>

#include "ops/device.h"

namespace rwkv::cpu {

struct Kernels;

/// `threads` 0: one per physical core that this process may use. The instruction set is choose_kernels().
std::unique_ptr<Device> open(int threads = 0);
/// With this instruction set, which the machine must have.
std::unique_ptr<Device> open(int threads, const Kernels& kernels);

}  // namespace rwkv::cpu
