// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <string>

namespace rwkv {

/// Bytes that can be allocated without swapping: what the system says is available, or less if the control
/// group's limit leaves less. The largest number when neither is known.
uint64_t available_memory();

/// Throws Error, `what` first, with both numbers, when `bytes` are more than available_memory(). `advice`
/// ends it.
void check_memory(uint64_t bytes, const std::string& what, const std::string& advice);

}  // namespace rwkv
