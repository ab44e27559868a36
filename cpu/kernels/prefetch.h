// Requests for what is needed soon, of the sets with vectors.
#pragma once

namespace rwkv::cpu::ISA {

// Assembly stays where it is written: intrinsics the compiler gathers, so that requests come in bursts, and
// g++ 12 takes a function that does nothing else for one without effect.
inline void prefetch(const void* p) { asm volatile("prefetcht0 %a0" ::"p"(p)); }
inline void prefetch_l2(const void* p) { asm volatile("prefetcht1 %a0" ::"p"(p)); }
/// For what is written soon: other cores, which may have read it, lose it now and not when the store waits.
inline void prefetch_to_write(const void* p) { asm volatile("prefetchw %a0" ::"p"(p)); }
/// For what is read once: it comes to the first-level cache alone, and leaves what the others hold.
inline void prefetch_once(const void* p) { asm volatile("prefetchnta %a0" ::"p"(p)); }

}  // namespace rwkv::cpu::ISA
