// Counts what this process allocates, to test code that must not.
#pragma once

#include <cstdint>

namespace rwkv::test {

/// Allocations so far, by all threads: malloc and everything that is built on it, such as operator new.
uint64_t allocations();

}  // namespace rwkv::test
