// In the place of cuda.cpp where the build has no CUDA.
#include "core/error.h"
#include "cuda/cuda.h"
#include "cuda/simulation.h"

namespace rwkv::cuda {

int device_count() { return 0; }

std::string missing() {
  return "this program was built without CUDA; build it with make CUDA=1, or use a cpu strategy";
}

std::unique_ptr<Device> open(int) { throw Error(missing()); }

bool simulated() { return false; }
void set_bandwidths(double, double) {}
SimulatedWork take_simulated_work() { return {}; }

}  // namespace rwkv::cuda
