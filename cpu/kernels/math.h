// Functions of a Vec beyond arithmetic. Relative error below 3e-7 over the whole range (tested), except where
// the result is no normal number (below 1.2e-38; silu: below 3e-37), which may become 0; NaN stays NaN.
#pragma once

#include "cpu/kernels/isa.h"

namespace rwkv::cpu::ISA {

/// a * 2^n, rounded once, for |a| in [1/2, 2] and whole n in [-252, 254]; NaN stays NaN.
inline Vec scale_by_power(Vec a, Vec n) {
#if RWKV_ISA >= RWKV_ISA_avx512
  return {_mm512_scalef_ps(a.v, n.v)};
#else
  // In two factors, since one does not reach so far.
  const Vec half = round_nearest(mul(n, set1(0.5f)));
  return mul(mul(a, power_of_two(half)), power_of_two(sub(n, half)));
#endif
}

/// e^x as 2^n e^r with |r| <= ln 2 / 2, e^r by its Taylor polynomial of degree 7. Overflows to infinity and
/// underflows gradually to 0, as it must: the limits lie beyond both ends.
inline Vec exp(Vec x) {
  Vec limited = min_of(set1(89.0f), max_of(set1(-104.0f), x));
  Vec n = round_nearest(mul(limited, set1(1.44269504f)));
  Vec r = fma(n, set1(-0.693359375f), limited);  // ln 2 in two parts, the first exact in few bits
  r = fma(n, set1(2.12194440e-4f), r);
  Vec p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return scale_by_power(p, n);
}

inline Vec sigmoid(Vec x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(set1(0.0f), x)))); }

inline Vec silu(Vec x) { return div(x, add(set1(1.0f), exp(sub(set1(0.0f), x)))); }

/// Near zero by a polynomial, elsewhere 1 - 2 / (e^2x + 1).
inline Vec tanh(Vec x) {
  Vec square = mul(x, x);
  Vec p = set1(-5.70498872745e-3f);
  p = fma(p, square, set1(2.06390887954e-2f));
  p = fma(p, square, set1(-5.37397155531e-2f));
  p = fma(p, square, set1(1.33314422036e-1f));
  p = fma(p, square, set1(-3.33332819422e-1f));
  Vec near_zero = fma(mul(p, square), x, x);
  Vec far = sub(set1(1.0f), div(set1(2.0f), add(exp(add(x, x)), set1(1.0f))));
  return select_small(x, 0.625f, near_zero, far);
}

/// Calls body(index, load, store) for vectors of 16 and once for the rest, with load(p) and store(p, v) that
/// touch only what exists.
template <class Body>
inline void for_lanes(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    body(
        i, [](const float* p) { return load(p); }, [](float* p, Vec v) { store(p, v); });
  }
  if (int64_t rest = count - i; rest > 0) {
    body(
        i, [rest](const float* p) { return load_part(p, rest); },
        [rest](float* p, Vec v) { store_part(p, v, rest); });
  }
}

}  // namespace rwkv::cpu::ISA
