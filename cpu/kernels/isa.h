// The instruction set that a kernel source is compiled for. Each source under cpu/kernels/ is compiled once
// per set, with ISA defined as its name (scalar, avx2, ...), which is also the namespace that its code goes
// to.
//
// A source includes all standard headers first and then this one. It selects the target for everything that
// follows by a pragma, not by compiler flags, so that no inline function of the standard library is compiled
// for an instruction set that another machine lacks and then shared by the linker.
#pragma once

#define RWKV_ISA_scalar 0
#define RWKV_ISA_avx2 1
#define RWKV_ISA_avxvnni 2
#define RWKV_ISA_avx512 3
#define RWKV_ISA_avx512vnni 4
#define RWKV_ISA_avx512bf16 5
#define RWKV_ISA_amx 6
#define RWKV_JOIN_(a, b) a##b
#define RWKV_JOIN(a, b) RWKV_JOIN_(a, b)
#define RWKV_ISA RWKV_JOIN(RWKV_ISA_, ISA)
/// Whether several tokens multiply with int8, int4 and bf16 as integers: VNNI without instructions for bf16,
/// which take as long and save the time for scales.
#define RWKV_INTEGER_PRODUCTS (RWKV_ISA == RWKV_ISA_avxvnni || RWKV_ISA == RWKV_ISA_avx512vnni)

#if RWKV_ISA != RWKV_ISA_scalar
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 finds it in its own intrinsics (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#if RWKV_ISA == RWKV_ISA_avx2
#pragma GCC target("avx2,fma,f16c")
#elif RWKV_ISA == RWKV_ISA_avxvnni
#pragma GCC target("avx2,fma,f16c,avxvnni")
#elif RWKV_ISA == RWKV_ISA_avx512
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c,prefer-vector-width=512")
#elif RWKV_ISA == RWKV_ISA_avx512vnni
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c,prefer-vector-width=512")
#elif RWKV_ISA == RWKV_ISA_avx512bf16
#pragma GCC target( \
    "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,fma,f16c,prefer-vector-width=512")
#elif RWKV_ISA == RWKV_ISA_amx
#pragma GCC target( \
    "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,fma,f16c,amx-tile,amx-bf16,prefer-vector-width=512")
#endif

#if RWKV_ISA == RWKV_ISA_scalar
#include "cpu/kernels/vec_scalar.h"
#elif RWKV_ISA <= RWKV_ISA_avxvnni
#include "cpu/kernels/vec_avx2.h"
#else
#include "cpu/kernels/vec_avx512.h"
#endif
