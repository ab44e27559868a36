#include "tools/peak.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/thread_pool.h"

// Arrays of chains are to be in registers, which takes more than the usual optimization.
#pragma GCC optimize("O3")

namespace rwkv::apps {
namespace {

using Clock = std::chrono::steady_clock;

// Chains that do not wait for each other: more than latency times units of any processor.
constexpr int chains = 12;  // unrolled: then they are in registers
constexpr int64_t steps = 500'000;

// Each function does `steps` steps of all chains, and gives a number so that none of them is left out.

float run_scalar() {
  __m128 sums[chains] = {}, factor = _mm_set1_ps(0.5f), term = _mm_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
    for (__m128& sum : sums) {
      sum = _mm_add_ps(_mm_mul_ps(sum, factor), term);
      asm volatile("" : "+v"(sum));  // the chains are equal, and must not become one
    }
  }
#pragma GCC unroll 12
  for (int c = 1; c < chains; c++) sums[0] = _mm_add_ps(sums[0], sums[c]);
  return _mm_cvtss_f32(sums[0]);
}

__attribute__((target("avx2,fma"))) float run_avx2() {
  __m256 sums[chains] = {}, factor = _mm256_set1_ps(0.5f), term = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
    for (__m256& sum : sums) {
      sum = _mm256_fmadd_ps(sum, factor, term);
      asm volatile("" : "+v"(sum));  // the chains are equal, and must not become one
    }
  }
#pragma GCC unroll 12
  for (int c = 1; c < chains; c++) sums[0] = _mm256_add_ps(sums[0], sums[c]);
  return _mm256_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) float run_avx512() {
  __m512 sums[chains] = {}, factor = _mm512_set1_ps(0.5f), term = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      sum = _mm512_fmadd_ps(sum, factor, term);
      asm volatile("" : "+v"(sum));  // the chains are equal, and must not become one
    }
  }
#pragma GCC unroll 12
  for (int c = 1; c < chains; c++) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f,avx512bf16"))) float run_avx512bf16() {
  __m512 sums[chains] = {};
  auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f00));  // 0.5
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));  // the chains are equal, and must not become one
    }
  }
#pragma GCC unroll 12
  for (int c = 1; c < chains; c++) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("amx-tile,amx-bf16"))) float run_amx() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } configuration;
  _tile_loadconfig(&configuration);
  for (int64_t i = 0; i < steps; i += 16) {  // an instruction does what twelve chains do in so many steps
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float result[16][16];
  _tile_stored(0, result, 64);
  _tile_release();
  return result[0][0];
}

struct Arithmetic {
  float (*run)();
  double operations;  // of one step of one chain
};

Arithmetic arithmetic_of(std::string_view instruction_set, bool bf16_pairs) {
  constexpr double of_tile = 16.0 * 16 * 32 * 2;
  if (instruction_set == "amx" && bf16_pairs) return {run_amx, of_tile * 4 / 16 / chains};
  if (instruction_set == "avx512bf16" && bf16_pairs) return {run_avx512bf16, 64};
  if (instruction_set.starts_with("avx512") || instruction_set == "amx") return {run_avx512, 32};
  if (instruction_set == "avx2" || instruction_set == "avxvnni") return {run_avx2, 16};
  return {run_scalar, 8};
}

}  // namespace

double measure_arithmetic_peak(std::string_view instruction_set, bool bf16_pairs, int threads) {
  Arithmetic arithmetic = arithmetic_of(instruction_set, bf16_pairs);
  ThreadPool pool(threads);
  std::atomic<float> sink = 0;
  double best = 0;
  // Short runs, of which some are not disturbed.
  for (auto end = Clock::now() + std::chrono::milliseconds(300); Clock::now() < end;) {
    auto start = Clock::now();
    pool.run([&](int) { sink = sink + arithmetic.run(); });
    double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best,
                    static_cast<double>(steps) * chains * arithmetic.operations * pool.threads() / seconds);
  }
  return best;
}

}  // namespace rwkv::apps
