// The CUDA devices that the suites "cuda" and "cuda-model" run on: emulated ones in `make test`, real ones in
// `make test-gpu`. Sources that include cuda/emulator/control.h have names that end in _emulated.cpp, or
// stand in test/cuda/emulator/: they belong to `make test` alone.
#pragma once

#include <cstddef>
#include <functional>

namespace rwkv::test {

/// What a test needs.
struct Devices {
  int count = 1;                    ///< with fewer, a test does not run
  size_t memory = size_t{1} << 30;  ///< bytes of each emulated device
  int first_run = 0;  ///< which of the runs comes first: a test of many cases need not run each in every way
};

/// Whether memory, order and time are the emulator's.
bool emulated();

/// Runs `test` on emulated devices `runs` times: 4 have each order of threads and each policy of streams
/// once, 16 each pair of them, and each run has a seed of its own; on real devices once. After each run
/// nothing may be left on the devices and nothing have been reported, else the test case fails.
void on_devices(const Devices& devices, int runs, const std::function<void()>& test);

/// The same on one device.
inline void on_device(int runs, const std::function<void()>& test) { on_devices({}, runs, test); }

}  // namespace rwkv::test
