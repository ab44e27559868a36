// How fast the processor multiplies and adds when it waits for nothing else.
#pragma once

#include <string_view>

namespace rwkv::apps {

/// Multiplications and additions per second, on all threads, of the fp32 arithmetic of an instruction set (as
/// RWKV_CPU names it, which the machine must have), or of its arithmetic on pairs of bf16 where it has that.
double measure_arithmetic_peak(std::string_view instruction_set, bool bf16_pairs, int threads);

}  // namespace rwkv::apps
