#include "test/cuda/emulator/toolkit.h"

#include <cuda_runtime_api.h>

#include "test/cuda/emulator/toolkit_calls.h"
#include "test/cuda/emulator/toolkit_constants.h"

namespace rwkv::test::toolkit {

namespace {

template <class... T>
std::vector<long long> numbers(T... values) {
  return {static_cast<long long>(values)...};
}

}  // namespace

uint64_t convert_half(Convert call, uint64_t bits) { return HalfCalls::convert(call, bits); }
uint64_t convert_bfloat16(Convert call, uint64_t bits) { return BrainCalls::convert(call, bits); }
uint64_t calculate_half(Calculate call, uint64_t a, uint64_t b) { return calculate<HalfCalls>(call, a, b); }
uint64_t calculate_bfloat16(Calculate call, uint64_t a, uint64_t b) {
  return calculate<BrainCalls>(call, a, b);
}
std::vector<long long> constants() { return numbers(TOOLKIT_CONSTANTS); }

}  // namespace rwkv::test::toolkit
