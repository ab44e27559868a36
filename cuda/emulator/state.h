// What the parts of the runtime share.
#pragma once

#include <array>
#include <map>
#include <string>

#include "cuda/emulator/control.h"
#include "cuda/emulator/memory.h"

namespace emulator {

struct Planned {
  Operation operation = Operation::any;
  int at = 0;  // the number of the call, as calls() counts; 0: none
  cudaError_t error = cudaSuccess;
};

struct State {
  Settings settings;
  Counters counters;
  std::string report;
  cudaError_t sticky = cudaSuccess;
  std::map<const void*, int> dynamic_shared;          // by kernel, what cudaFuncSetAttribute set
  std::array<unsigned, memory::max_devices> peers{};  // bit by bit, whose memory a device reaches
  std::array<int, 10> calls{};                        // by operation
  Planned planned;
  bool configured = false;
};

State& state();

/// Notes what is wrong; the first counts. `error` stays if a device would keep it: an error of the program's
/// work.
cudaError_t fail(cudaError_t error, const std::string& text);

}  // namespace emulator
