#include "test/cuda/device_under_test.h"

#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include "cuda/cuda.h"

namespace rwkv::test {

bool emulated() { return false; }

void on_devices(const Devices& devices, int /*runs*/, const std::function<void()>& test) {
  if (cuda::device_count() < devices.count) {
    MESSAGE("left out: it needs " << devices.count << " devices");
    return;
  }
  test();
  CHECK(cudaGetLastError() == cudaSuccess);
}

}  // namespace rwkv::test
