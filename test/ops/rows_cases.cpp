// Operators on the rows of tokens: embed, layer_norm, token_shift.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/half.h"
#include "cpu/cpu.h"
#include "test/ops/operator_cases.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

constexpr int64_t widths[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 65, 100, 129, 300};
constexpr int64_t chunk_lengths[] = {1, 2, 3, 5, 11, 12, 13, 25, 64, 100};

/// Rows of different sizes: usual, shifted far from zero, tiny, all equal, zero, huge.
std::vector<float> rows(Random& random, int64_t tokens, int64_t width) {
  std::vector<float> x = random.normals(tokens * width);
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t i = 0; i < width; i++) {
      float& v = x[static_cast<size_t>(t * width + i)];
      switch (t % 7) {
        case 1:
          v += 50;
          break;
        case 2:
          v *= 1e-3f;
          break;
        case 3:
          v = 2.5f;
          break;
        case 4:
          v = 0;
          break;
        case 5:
          v *= width > 1 ? 1e15f : 1;  // alone, it would be all rounding error
          break;
        default:
          break;
      }
    }
  }
  return x;
}

}  // namespace

Sequence layer_norm_sequence(int64_t tokens, int64_t width, int64_t seed, bool in_place) {
  Random random(static_cast<uint64_t>(seed));
  std::vector<float> x = rows(random, tokens, width), weight = random.normals(width),
                     bias = random.normals(width);
  Sequence s;
  s.tokens = tokens;
  s.run = [=](Bench bench, Range range, std::vector<float>&) {
    int64_t count = range.end - range.begin;
    DeviceTensor in(bench.device, {count, width}, rows_of(x, width, range), Place::number(seed));
    DeviceTensor out(bench.device, {count, width}, rows_of(x, width, range), Place::number(seed + 1));
    DeviceTensor w(bench.device, {width}, weight, Place::number(seed + 2));
    DeviceTensor b(bench.device, {width}, bias, Place::number(seed + 3));
    bench.ops.layer_norm(in_place ? in : out, in, {w, b});
    bench.ops.synchronize();
    return in_place ? finish(in, {&w, &b}) : finish(out, {&in, &w, &b});
  };
  s.expected = [=](int64_t t, Floats) {
    return Step{layer_norm(std::span(x).subspan(static_cast<size_t>(t * width), static_cast<size_t>(width)),
                           weight, bias),
                {}};
  };
  return s;
}

Sequence token_shift_sequence(int64_t tokens, int64_t width, int64_t mixes, int64_t seed) {
  Random random(static_cast<uint64_t>(seed));
  std::vector<float> x = rows(random, tokens, width), weight = random.normals(width),
                     bias = random.normals(width);
  std::vector<float> amounts = random.uniforms(mixes * width, -0.5, 1.5);
  Sequence s;
  s.tokens = tokens;
  s.state = random.normals(width);
  s.run = [=](Bench bench, Range range, std::vector<float>& state) {
    int64_t count = range.end - range.begin;
    DeviceTensor in(bench.device, {count, width}, rows_of(x, width, range), Place::number(seed));
    DeviceTensor w(bench.device, {width}, weight, Place::number(seed + 1));
    DeviceTensor b(bench.device, {width}, bias, Place::number(seed + 2));
    DeviceTensor before(bench.device, {width}, state, Place::number(seed + 3));
    std::vector<float> nothing(static_cast<size_t>((count + 1) * width));
    DeviceTensor normalized(bench.device, {count + 1, width}, nothing, Place::number(seed + 4));
    std::vector<DeviceTensor> amount, mixed;
    std::vector<Mix> list;
    amount.reserve(static_cast<size_t>(mixes));
    mixed.reserve(static_cast<size_t>(mixes));
    for (int64_t m = 0; m < mixes; m++) {
      amount.emplace_back(bench.device, std::initializer_list<int64_t>{width},
                          rows_of(amounts, width, {m, m + 1}), Place::number(seed + m));
      mixed.emplace_back(bench.device, std::initializer_list<int64_t>{count, width}, nothing,
                         Place::number(seed + m + 1));
      list.push_back({amount.back(), mixed.back()});
    }
    bench.ops.token_shift({in, {w, b}, before, normalized, list});
    bench.ops.synchronize();

    std::vector<std::vector<float>> parts;
    parts.push_back(finish(normalized, {&in, &w, &b}));
    CHECK(same_bits(rows_of(parts[0], width, {0, 1}), state));
    parts[0].erase(parts[0].begin(), parts[0].begin() + width);
    for (size_t m = 0; m < mixed.size(); m++) parts.push_back(finish(mixed[m], {&amount[m]}));
    state = finish(before, {});
    std::vector<float> out;
    for (int64_t t = 0; t < count; t++) {
      for (const auto& part : parts)
        out.insert(out.end(), part.begin() + t * width, part.begin() + (t + 1) * width);
    }
    return out;
  };
  s.expected = [=](int64_t t, Floats state) {
    std::vector<Floats> lists;
    auto size = static_cast<size_t>(width);
    for (size_t m = 0; m < static_cast<size_t>(mixes); m++)
      lists.push_back(Floats(amounts).subspan(m * size, size));
    return token_shift(Floats(x).subspan(static_cast<size_t>(t) * size, size), weight, bias, state, lists);
  };
  return s;
}

void check_embed(const Implementation& implementation) {
  Random random(1);
  Bench bench = implementation[0];
  auto host = cpu::open(1);
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (int64_t width : widths) {
      CAPTURE(name_of(dtype));
      CAPTURE(width);
      constexpr int64_t vocabulary = 11;
      std::vector<float> table = random.normals(vocabulary * width);
      table[0] = 1e-7f;  // subnormal in fp16
      table.back() = -0.0f;
      std::vector<int32_t> tokens = {0, 10, 5, 5, 0, 9, 3};
      auto count = static_cast<int64_t>(tokens.size());
      DeviceTensor rows(*host, {vocabulary, width}, table, Place::number(width), dtype);
      std::vector<float> nothing(static_cast<size_t>(count * width)), expected;
      DeviceTensor out(bench.device, {count, width}, nothing, Place::number(width + 1));
      bench.ops.embed(out, rows, tokens);
      bench.ops.synchronize();
      for (int32_t token : tokens) {
        for (int64_t i = 0; i < width; i++) {
          float v = table[static_cast<size_t>(token * width + i)];
          if (dtype == DType::f16) v = to_float(to_half(v));
          if (dtype == DType::bf16) v = to_float(to_bfloat16(v));
          expected.push_back(v);
        }
      }
      CHECK(same_bits(finish(out, {&rows}), expected));
    }
  }
}

void check_layer_norm(const Implementation& implementation) {
  int64_t seed = 0;
  for (int64_t width : widths) {
    for (bool in_place : {false, true}) {
      int64_t tokens = chunk_lengths[seed % std::size(chunk_lengths)];
      CAPTURE(width);
      CAPTURE(tokens);
      CAPTURE(in_place);
      check_sequence(implementation, layer_norm_sequence(tokens, width, seed++, in_place));
    }
  }
  check_sequence(implementation, layer_norm_sequence(100, 300, seed, false));  // enough work for all threads

  // A NaN or an infinity makes its row NaN and leaves the others alone.
  Bench bench = implementation[0];
  constexpr float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x(60, 1.5f), ones(20, 1.0f);
  x[7] = std::nanf("");
  x[25] = inf;
  DeviceTensor in(bench.device, {3, 20}, x), weight(bench.device, {20}, ones), bias(bench.device, {20}, ones);
  bench.ops.layer_norm(in, in, {weight, bias});
  bench.ops.synchronize();
  std::vector<float> out = in.values();
  for (size_t i = 0; i < out.size(); i++) CHECK(std::isnan(out[i]) == (i < 40));
}

void check_token_shift(const Implementation& implementation) {
  int64_t seed = 0;
  for (int64_t mixes : {0, 2, 3, 5, 6}) {
    for (int64_t width : widths) {
      int64_t tokens = chunk_lengths[seed % std::size(chunk_lengths)];
      if (seed % 2 == 1 && tokens > 25) tokens = 4;
      CAPTURE(mixes);
      CAPTURE(width);
      CAPTURE(tokens);
      check_sequence(implementation, token_shift_sequence(tokens, width, mixes, seed++));
    }
  }
  check_sequence(implementation, token_shift_sequence(100, 300, 6, seed));
}

}  // namespace rwkv::test
