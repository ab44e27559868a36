#pragma once

#include "cuda/emulator/queue.h"

namespace emulator {

/// Does a piece of work of a stream of that device. What is wrong goes to fail().
void execute(Work& work, int device);

/// What is wrong with a launch before it runs, or success.
cudaError_t check_launch(const cudaLaunchConfig_t& config, const Kernel& kernel, int device);
/// Whether the device can reach what the arguments point to: pointers, and words in structures that are
/// addresses of this process' memory.
cudaError_t check_arguments(const Kernel& kernel, const Argument* arguments, int count, int device);

/// Whether both sides of a copy or fill are still what they were at its call.
cudaError_t check_sides(const Work& work);

}  // namespace emulator
