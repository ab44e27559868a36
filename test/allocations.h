// Counts what this process allocates, to test code that must not, or not much, or that must fail well when
// it cannot.
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
/// Bytes in use, beyond those in use at restart_peak().
int64_t live_bytes();

/// The n-th operator new from now, on any thread, throws std::bad_alloc; 0: none does.
void fail_allocation(uint64_t n);
/// Whether it has thrown.
bool allocation_failed();

}  // namespace rwkv::test
