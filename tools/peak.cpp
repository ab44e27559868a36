#include "tools/peak.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/thread_pool.h"

namespace rwkv::apps {
namespace {

using Clock = std::chrono::steady_clock;

// Chains that do not wait for each other: more than latency times units of any processor.
constexpr int chains = 12;
constexpr int64_t steps = 500'000;

// Each function does `steps` steps of all chains, and gives a number so that none of them is left out.

float run_scalar() {
  __m128 sums[chains] = {}, factor = _mm_set1_ps(0.5f), term = _mm_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; i++) {
    for (__m128& sum : sums) sum = _mm_add_ps(_mm_mul_ps(sum, factor), term);
  }
  for (int c = 1; c < chains; c++) sums[0] = _mm_add_ps(sums[0], sums[c]);
  return _mm_cvtss_f32(sums[0]);
}

__attribute__((target("avx2,fma"))) float run_avx2() {
  __m256 sums[chains] = {}, factor = _mm256_set1_ps(0.5f), term = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; i++) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, factor, term);
  }
  for (int c = 1; c < chains; c++) sums[0] = _mm256_add_ps(sums[0], sums[c]);
  return _mm256_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) float run_avx512() {
  __m512 sums[chains] = {}, factor = _mm512_set1_ps(0.5f), term = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; i++) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, factor, term);
  }
  for (int c = 1; c < chains; c++) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f,avx512bf16"))) float run_avx512bf16() {
  __m512 sums[chains] = {};
  auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f00));  // 0.5
  for (int64_t i = 0; i < steps; i++) {
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, factor, factor);
  }
  for (int c = 1; c < chains; c++) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  return _mm512_cvtss_f32(sums[0]);
}

struct Arithmetic {
  float (*run)();
  int operations;  // of one step of one chain
};

Arithmetic arithmetic_of(std::string_view instruction_set, bool bf16_pairs) {
  if (instruction_set == "avx512bf16" && bf16_pairs) return {run_avx512bf16, 64};
  if (instruction_set.starts_with("avx512")) return {run_avx512, 32};
  if (instruction_set == "avx2") return {run_avx2, 16};
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
