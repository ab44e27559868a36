// What follows a product's sums: ops.h, Epilogue.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/math.h"

namespace rwkv::cpu::ISA {
namespace {

/// For neighbouring outputs of a token; get(p) loads as many as y has. A sum that is -0, because its products
/// are too small, becomes +0, whether or not products with zero inputs come after them.
template <Epilogue epilogue, class Get>
inline Vec apply(const Product& p, int64_t token, int64_t output, Get get, Vec sum) {
  const Vec y = add(sum, set1(0));
  auto out = [&] { return get(p.out.row(token) + output); };
  auto bias = [&] { return get(p.bias.f32() + output); };
  auto a = [&] { return get(p.a.row(token) + output); };
  if constexpr (epilogue == Epilogue::add) return add(out(), y);
  if constexpr (epilogue == Epilogue::gated_add) return fma(a(), y, out());
  if constexpr (epilogue == Epilogue::tanh) return tanh(y);
  if constexpr (epilogue == Epilogue::sigmoid) return sigmoid(y);
  if constexpr (epilogue == Epilogue::silu) return silu(y);
  if constexpr (epilogue == Epilogue::relu_squared) {
    Vec positive = max_of(set1(0), y);
    return mul(positive, positive);
  }
  if constexpr (epilogue == Epilogue::biased_sigmoid) return sigmoid(add(bias(), y));
  if constexpr (epilogue == Epilogue::biased_mix) {
    Vec from = a();
    return fma(sub(get(p.b.row(token) + output), from), add(bias(), y), from);
  }
  if constexpr (epilogue == Epilogue::decay6) return exp(sub(set1(0), exp(add(bias(), y))));
  if constexpr (epilogue == Epilogue::decay7) return exp(mul(set1(-0.606531f), sigmoid(add(bias(), y))));
  return y;
}

/// body.operator()<epilogue>()
template <class Body>
inline void with_epilogue(Epilogue epilogue, Body body) {
  constexpr int count = static_cast<int>(Epilogue::decay7) + 1;
  [&]<int... index>(std::integer_sequence<int, index...>) {
    static_cast<void>(((static_cast<int>(epilogue) == index &&
                        (body.template operator()<static_cast<Epilogue>(index)>(), true)) ||
                       ...));
  }
  (std::make_integer_sequence<int, count>());
}

/// Stores the outcome of `count` <= 16 neighbouring outputs of one token.
inline void finish(const Product& p, int64_t token, int64_t output, int64_t count, Vec y) {
  float* out = p.out.row(token) + output;
  with_epilogue(p.epilogue, [&]<Epilogue epilogue>() {
    if (count == 16) {
      store(out, apply<epilogue>(
                     p, token, output, [](const float* from) { return load(from); }, y));
    } else {
      auto get = [count](const float* from) { return load_part(from, count); };
      store_part(out, apply<epilogue>(p, token, output, get, y), count);
    }
  });
}

/// The same for outputs [output, output + count) of some tokens, whose sums are rows of `stride` values.
inline void finish_rows(const Product& p, Range tokens, int64_t output, int64_t count, const float* sums,
                        int64_t stride) {
  with_epilogue(p.epilogue, [&]<Epilogue epilogue>() {
    for (int64_t t = tokens.begin; t < tokens.end; t++, sums += stride) {
      for_lanes(count, [&](int64_t i, auto get, auto put) {
        put(p.out.row(t) + output + i, apply<epilogue>(p, t, output + i, get, load(sums + i)));
      });
    }
  });
}

/// Asks for the places of these outputs, which are written soon and may be added to, and what else their
/// epilogue reads for each token.
inline void fetch_outputs(const Product& p, Range tokens, Range outputs) {
  auto each = [&](const Tensor& of_tokens, auto ask) {
    for (int64_t t = tokens.begin; t < tokens.end; t++) {
      for (int64_t i = outputs.begin; i < outputs.end; i += 16) ask(of_tokens.row(t) + i);
    }
  };
  each(p.out, prefetch_to_write);
  if (p.epilogue == Epilogue::gated_add || p.epilogue == Epilogue::biased_mix) each(p.a, prefetch);
  if (p.epilogue == Epilogue::biased_mix) each(p.b, prefetch);
}

}  // namespace
}  // namespace rwkv::cpu::ISA
