// What an emulated CUDA device counts: how a strategy would do on a device of some bandwidths, on a machine
// without one.
#pragma once

#include <cstdint>

namespace rwkv::cuda {

/// Whether CUDA devices of this build are emulated. Without that the other functions do nothing.
bool simulated();

/// Bytes per second of a device's memory and of the links to it. Before any device is opened.
void set_bandwidths(double device, double link);

struct SimulatedWork {
  uint64_t launches = 0;
  uint64_t kernel_bytes = 0;  ///< weights that kernels read
  uint64_t to_device_bytes = 0, to_host_bytes = 0, between_bytes = 0;
  double seconds = 0;  ///< the longest chain of copies, kernels and waits
};

/// Since the last call, or since the beginning. Waits for all work.
SimulatedWork take_simulated_work();

}  // namespace rwkv::cuda
