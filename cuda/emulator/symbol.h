#pragma once

#include <string>

namespace emulator {

/// The name of a function of this program, for people.
std::string symbol_name(const void* function);

}  // namespace emulator
