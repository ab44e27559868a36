// Counts what this process allocates, to test code that must not, or not much.
#pragma once

#include <cstdint>

namespace rwkv::test {

/// Allocations so far, by all threads: malloc and everything that is built on it, such as operator new.
uint64_t allocations();
/// Leaves out what is allocated while `inside()` holds, such as in the runtime of an emulated device.
void leave_out_allocations(bool (*inside)());

/// The most bytes in use at once since restart_peak(), beyond those in use then.
int64_t peak_bytes();
void restart_peak();

}  // namespace rwkv::test
