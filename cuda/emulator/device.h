// What kernels see: qualifiers, indices, shared memory, barriers, warp primitives, atomics, intrinsics.
// Each thread of a block is a fiber; they change at barriers, warp primitives and (in random order) atomics.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/emulator/include/vector_types.h"

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
#define __global__
#define __device__
#define __host__
// Declarations, for which no parentheses may stand around what the macro is given.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define __constant__ static_assert(false, "the emulated device has no constant memory");
#define __shared__ static_assert(false, "write SHARED_ARRAY or DYNAMIC_SHARED_ARRAY");
#define __forceinline__ inline
#define __grid_constant__
// The bound is written down as so many `nop`s before the function (launch_bound in execute.cpp). Clang, which
// only reads these sources, wants a literal there.
#ifdef __clang__
#define __launch_bounds__(...)
#else
#define __launch_bounds__(threads, ...) __attribute__((patchable_function_entry((threads), (threads))))
#endif

/// T name[count] in the block's shared memory; count is a constant.
#define SHARED_ARRAY(T, name, count) \
  static const char name##_site = 0; \
  T(&name)                           \
  [count] = *static_cast<T(*)[count]>(::emulator::shared_array(&name##_site, sizeof(T[count]), alignof(T)))
/// T* name: the dynamic shared memory of the launch.
#define DYNAMIC_SHARED_ARRAY(T, name) T* name = static_cast<T*>(::emulator::dynamic_shared_memory())
// NOLINTEND(bugprone-macro-parentheses)

namespace emulator {

struct Site {
  const char* file;
  int line;
};
enum class Meeting : uint8_t { sync, shuffle, ballot };

void* shared_array(const void* site, size_t bytes, size_t alignment);
void* dynamic_shared_memory();
/// Meets all threads of the block; the number of them whose predicate is true.
int block_barrier(bool predicate, Site site);
/// Meets the lanes of the mask: what lane `source` brought, poison where that is outside the mask.
uint64_t warp_exchange(unsigned mask, uint64_t value, int source, Meeting meeting, Site site);
/// Meets the lanes of the mask: those whose predicate is true.
unsigned warp_ballot(unsigned mask, bool predicate, Site site);
/// Before each atomic: another thread may go on here.
void begin_atomic(void* address);
/// Orders memory between blocks, together with atomics: what a thread did before its fence happened before
/// what a thread of another block does after its own, if the second's block saw in between, by an atomic,
/// what the first's had changed by one after its fence.
void fence();
/// Bytes that the running grid has loaded by the intrinsics that count.
extern uint64_t loaded_bytes;
/// Of a load or store.
[[noreturn]] void stop_at_misaligned(const void* address, size_t bytes);
/// The number of the running thread in its block.
extern unsigned running_thread;
inline int lane() { return static_cast<int>(running_thread % 32); }

template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = warp_exchange(mask, word, source, Meeting::shuffle, site);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

template <class T, class Change>
T atomic_change(T* address, Change change) {
  begin_atomic(address);
  T old, changed;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    changed = change(old);
  } while (!__atomic_compare_exchange(address, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

template <class T>
T load(const T* address) {
  // Atomic for the thread sanitizer only; threads of the device change nowhere here.
  __atomic_store_n(&loaded_bytes, __atomic_load_n(&loaded_bytes, __ATOMIC_RELAXED) + sizeof(T),
                   __ATOMIC_RELAXED);
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0) stop_at_misaligned(address, sizeof(T));
  return *address;
}

template <class T>
void store(T* address, const T& value) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0) stop_at_misaligned(address, sizeof(T));
  *address = value;
}

}  // namespace emulator

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// A defaulted parameter is the place of the call.
#define EMULATOR_HERE ::emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

// --- Barriers and fences ---
inline void __syncthreads(EMULATOR_HERE) { emulator::block_barrier(false, site); }
inline int __syncthreads_count(int p, EMULATOR_HERE) { return emulator::block_barrier(p != 0, site); }
inline int __syncthreads_or(int p, EMULATOR_HERE) { return emulator::block_barrier(p != 0, site) != 0; }
inline int __syncthreads_and(int p, EMULATOR_HERE) { return emulator::block_barrier(p == 0, site) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_HERE) {
  emulator::warp_exchange(mask, 0, emulator::lane(), emulator::Meeting::sync, site);
}
inline void __threadfence() { emulator::fence(); }

// --- Warp primitives. `width` (a power of two) divides the warp; what lies outside gives the lane's own
// value ---
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, EMULATOR_HERE) {
  const int own = emulator::lane();
  return emulator::shuffle(mask, value, (own & ~(width - 1)) | (source & (width - 1)), site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, EMULATOR_HERE) {
  const int own = emulator::lane(), source = own ^ bits;
  return emulator::shuffle(mask, value, source > (own | (width - 1)) ? own : source, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = warpSize, EMULATOR_HERE) {
  const int own = emulator::lane(), source = own + static_cast<int>(distance);
  return emulator::shuffle(mask, value, source > (own | (width - 1)) ? own : source, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = warpSize, EMULATOR_HERE) {
  const int own = emulator::lane(), source = own - static_cast<int>(distance);
  return emulator::shuffle(mask, value, source < (own & ~(width - 1)) ? own : source, site);
}
inline unsigned __ballot_sync(unsigned mask, int p, EMULATOR_HERE) {
  return emulator::warp_ballot(mask, p != 0, site);
}
inline int __any_sync(unsigned mask, int p, EMULATOR_HERE) {
  return emulator::warp_ballot(mask, p != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int p, EMULATOR_HERE) {
  return emulator::warp_ballot(mask, p == 0, site) == 0;
}
/// The device promises only that the calling lane is among them.
inline unsigned __activemask() { return 1u << emulator::lane(); }

// --- Atomics: the old value is returned ---
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_change(address, [value](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "atomicMax is for integers");
  return emulator::atomic_change(address, [value](T old) { return std::max(old, value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "atomicMin is for integers");
  return emulator::atomic_change(address, [value](T old) { return std::min(old, value); });
}
/// Counts to `last`, then from zero again.
inline unsigned atomicInc(unsigned* address, unsigned last) {
  return emulator::atomic_change(address, [last](unsigned old) { return old >= last ? 0 : old + 1; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_change(address, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "atomicCAS is for integers");
  return emulator::atomic_change(address, [=](T old) { return old == expected ? value : old; });
}

// --- Loads and stores with a cache hint: counted, and an error when misaligned ---
template <class T>
T __ldg(const T* address) {
  return emulator::load(address);
}
template <class T>
T __ldcs(const T* address) {
  return emulator::load(address);
}
template <class T>
T __ldcg(const T* address) {
  return emulator::load(address);
}
template <class T>
T __ldca(const T* address) {
  return emulator::load(address);
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
  emulator::store(address, value);
}

// --- Arithmetic ---
inline int min(int a, int b) { return std::min(a, b); }
inline int max(int a, int b) { return std::max(a, b); }
inline unsigned min(unsigned a, unsigned b) { return std::min(a, b); }
inline unsigned max(unsigned a, unsigned b) { return std::max(a, b); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return expf(a); }
inline float __saturatef(float a) { return a > 0 ? std::min(a, 1.0f) : 0.0f; }
inline float rsqrtf(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline int __popc(unsigned a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __ffs(int a) { return a == 0 ? 0 : std::countr_zero(static_cast<unsigned>(a)) + 1; }
/// Four of the eight bytes of y and x, whose lowest is number 0; each nibble of `selector` names one.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    result |= static_cast<unsigned>(bytes >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  }
  return result;
}
/// The scalar product of four signed bytes each, added to c.
inline int __dp4a(int a, int b, int c) {
  unsigned sum = static_cast<unsigned>(c);
  for (int i = 0; i < 32; i += 8) {
    const int product = static_cast<int8_t>(static_cast<unsigned>(a) >> i) *
                        static_cast<int8_t>(static_cast<unsigned>(b) >> i);
    sum += static_cast<unsigned>(product);
  }
  return static_cast<int>(sum);
}
#undef EMULATOR_HERE
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
