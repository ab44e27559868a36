// Which instruction set the kernels use.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"

namespace rwkv::cpu {

/// The sets that this machine can run, the best first. scalar is always the last.
std::vector<const Kernels*> supported_kernels();

/// The best set, or the one that the environment variable RWKV_CPU names, which can only lower the choice.
/// Throws Error for a name that is unknown or that this machine lacks, with the names that are possible.
const Kernels& choose_kernels();

}  // namespace rwkv::cpu
