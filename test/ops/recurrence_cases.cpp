// wkv4, wkv5 (with the decays of versions 5 and 6) and wkv7.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "test/ops/operator_cases.h"

namespace rwkv::test {
namespace {

constexpr Heads head_shapes[] = {{1, 8, 1},    {3, 8, 13}, {2, 16, 12}, {3, 24, 5}, {1, 32, 3},  {5, 32, 11},
                                 {1, 64, 100}, {3, 64, 5}, {6, 64, 25}, {2, 96, 2}, {2, 96, 12}, {1, 128, 13},
                                 {3, 128, 5},  {7, 10, 3}, {2, 17, 2},  {2, 1, 5},  {1, 256, 2}, {8, 16, 64}};

/// The inputs of a recurrence by name: [tokens, width] or [width].
class Inputs {
 public:
  Inputs(int64_t width, int64_t seed) : width_(width), seed_(seed) {}

  void add_tokens(const std::string& name, std::vector<float> values) {
    inputs_[name] = {std::move(values), true};
  }
  void add_vector(const std::string& name, std::vector<float> values) {
    inputs_[name] = {std::move(values), false};
  }
  float& last(const std::string& name) { return inputs_.at(name).values.back(); }

  /// Channels [begin, begin + count) of what a token reads; nothing when there is no such input.
  [[nodiscard]] Floats at(const std::string& name, int64_t token, int64_t begin, int64_t count) const {
    auto found = inputs_.find(name);
    if (found == inputs_.end()) return {};
    int64_t row = found->second.per_token ? token * width_ : 0;
    return Floats(found->second.values).subspan(static_cast<size_t>(row + begin), static_cast<size_t>(count));
  }

  /// All inputs on a device.
  [[nodiscard]] std::map<std::string, DeviceTensor> on(Device& device, Range tokens) const {
    std::map<std::string, DeviceTensor> tensors;
    int64_t place = seed_;
    for (const auto& [name, input] : inputs_) {
      const auto& [values, per_token] = input;
      if (per_token) {
        tensors.emplace(name, DeviceTensor(device, {tokens.end - tokens.begin, width_},
                                           rows_of(values, width_, tokens), Place::number(place++)));
      } else {
        tensors.emplace(name, DeviceTensor(device, {width_}, values, Place::number(place++)));
      }
    }
    return tensors;
  }

 private:
  struct Input {
    std::vector<float> values;
    bool per_token;
  };

  int64_t width_, seed_;
  std::map<std::string, Input> inputs_;
};

/// A sequence whose `call` fills in and runs the operator, with `out` in the place of r for odd seeds.
template <class Call>
Sequence sequence_of(const Inputs& inputs, std::initializer_list<int64_t> state_sizes, int64_t width,
                     int64_t seed, Call call) {
  Sequence s;
  std::vector<int64_t> sizes(state_sizes);
  s.run = [=](Bench bench, Range tokens, std::vector<float>& state) {
    auto tensors = inputs.on(bench.device, tokens);
    int64_t count = tokens.end - tokens.begin;
    DeviceTensor kept =
        sizes.size() == 2
            ? DeviceTensor(bench.device, {sizes[0], sizes[1]}, state, Place::number(seed))
            : DeviceTensor(bench.device, {sizes[0], sizes[1], sizes[2]}, state, {seed % 3, 0, false});
    DeviceTensor apart(bench.device, {count, width}, std::vector<float>(static_cast<size_t>(count * width)),
                       Place::number(seed + 1));
    bool in_place = seed % 2 == 1;
    DeviceTensor& out = in_place ? tensors.at("r") : apart;
    call(bench.ops, tensors, kept, out);
    bench.ops.synchronize();
    state = finish(kept, {});
    for (const auto& input : tensors) {
      CAPTURE(input.first);
      if (!in_place || input.first != "r") CHECK_FALSE(input.second.changed());
    }
    return finish(out, {});
  };
  return s;
}

/// Outputs [H, N] and states [H, N, N] of heads, one after the other.
template <class OfHead>
Step join_heads(int64_t count, OfHead of_head) {
  Step all;
  for (int64_t h = 0; h < count; h++) {
    Step head = of_head(h);
    all.out.insert(all.out.end(), head.out.begin(), head.out.end());
    all.state.insert(all.state.end(), head.state.begin(), head.state.end());
  }
  return all;
}

std::vector<float> mapped(std::vector<float> values, double (*f)(double)) {
  for (float& v : values) v = static_cast<float>(f(v));
  return values;
}

}  // namespace

Sequence wkv4_sequence(int64_t width, int64_t tokens, int64_t seed) {
  Random random(static_cast<uint64_t>(seed));
  Inputs in(width, seed);
  int64_t all = tokens * width;
  in.add_tokens("r", random.uniforms(all, 0, 1));
  in.add_tokens("k", random.normals(all, seed % 3 == 2 ? 40 : 2));
  in.add_tokens("v", random.normals(all));
  in.add_vector("decay", mapped(random.normals(width, 3), [](double x) { return -std::exp(x); }));
  in.add_vector("first", random.normals(width, 2));
  if (seed % 5 == 4) in.last("k") = NAN;
  Sequence s =
      sequence_of(in, {3, width}, width, seed, [](Ops& ops, auto& t, const Tensor& state, const Tensor& out) {
        ops.wkv4({t.at("r"), t.at("k"), t.at("v"), t.at("decay"), t.at("first"), state, out});
      });
  s.tokens = tokens;
  if (seed % 4 == 3) {
    s.state = random.normals(width);
    for (float v : random.uniforms(width, 0.1, 3)) s.state.push_back(v);
    for (float v : random.normals(width, 5)) s.state.push_back(v);
  } else {  // as before the first token
    s.state.assign(static_cast<size_t>(width) * 2, 0.0f);
    s.state.resize(static_cast<size_t>(width) * 3, -1e30f);
  }
  s.expected = [=](int64_t t, Floats state) {
    auto at = [&](const char* name) { return in.at(name, t, 0, width); };
    return wkv4({at("r"), at("k"), at("v"), at("decay"), at("first"), state});
  };
  return s;
}

namespace {

/// Zeros, as before the first token, or anything.
std::vector<float> head_state(Random& random, Heads shape, int64_t seed) {
  return random.normals(shape.heads * shape.size * shape.size, seed % 3 == 0 ? 0 : 0.5);
}

}  // namespace

Sequence wkv5_sequence(Heads shape, bool decay_per_token, int64_t seed) {
  int64_t heads = shape.heads, size = shape.size, tokens = shape.tokens;
  Random random(static_cast<uint64_t>(seed));
  int64_t width = heads * size, all = tokens * width;
  Inputs in(width, seed);
  for (const char* name : {"r", "k", "v"}) in.add_tokens(name, random.normals(all));
  auto decay = mapped(random.normals(decay_per_token ? all : width, 3),
                      [](double x) { return std::exp(-std::exp(x)); });
  decay_per_token ? in.add_tokens("decay", decay) : in.add_vector("decay", decay);
  in.add_vector("first", random.normals(width));
  in.add_vector("weight", random.normals(width));
  in.add_vector("bias", random.normals(width));
  bool gate = seed % 4 != 2;
  if (gate) in.add_tokens("gate", random.normals(all));
  if (seed % 5 == 4) in.last("v") = NAN;
  Sequence s = sequence_of(in, {heads, size, size}, width, seed,
                           [gate](Ops& ops, auto& t, const Tensor& state, const Tensor& out) {
                             ops.wkv5({t.at("r"),
                                       t.at("k"),
                                       t.at("v"),
                                       t.at("decay"),
                                       t.at("first"),
                                       {t.at("weight"), t.at("bias")},
                                       gate ? t.at("gate").view() : Tensor{},
                                       state,
                                       out});
                           });
  s.tokens = tokens;
  s.state = head_state(random, shape, seed);
  s.expected = [=](int64_t t, Floats state) {
    return join_heads(heads, [&](int64_t h) {
      auto at = [&](const char* name) { return in.at(name, t, h * size, size); };
      auto square = static_cast<size_t>(size * size);
      return wkv5({at("r"), at("k"), at("v"), at("decay"), at("first"), at("weight"), at("bias"), at("gate"),
                   state.subspan(static_cast<size_t>(h) * square, square)});
    });
  };
  return s;
}

namespace {

Inputs wkv7_inputs(Random& random, Heads shape, int64_t seed) {
  int64_t heads = shape.heads, size = shape.size, tokens = shape.tokens;
  int64_t width = heads * size, all = tokens * width;
  Inputs in(width, seed);
  for (const char* name : {"r", "v", "g"}) in.add_tokens(name, random.normals(all));
  std::vector<float> k = random.normals(all);
  if (seed % 2 == 0) std::fill(k.end() - size, k.end(), 0.0f);  // nothing to normalize
  in.add_tokens("k", k);
  in.add_tokens("decay", random.uniforms(all, 0.545, 1));
  in.add_tokens("a", random.uniforms(all, 0, 1));
  if (seed % 4 != 1) {
    in.add_tokens("v_first", random.normals(all));
    in.add_tokens("v_gate", random.uniforms(all, 0, 1));
  }
  in.add_vector("k_k", random.uniforms(width, 0.5, 1.5));
  in.add_vector("k_a", random.uniforms(width, 0, 1.5));
  for (const char* name : {"r_k", "weight", "bias"}) in.add_vector(name, random.normals(width));
  if (seed % 5 == 4) in.last("v") = NAN;
  return in;
}

}  // namespace

Sequence wkv7_sequence(Heads shape, int64_t seed) {
  int64_t heads = shape.heads, size = shape.size, tokens = shape.tokens;
  Random random(static_cast<uint64_t>(seed));
  Inputs in = wkv7_inputs(random, shape, seed);
  Sequence s = sequence_of(in, {heads, size, size}, heads * size, seed,
                           [](Ops& ops, auto& t, const Tensor& state, const Tensor& out) {
                             auto at = [&](const char* name) {
                               return t.contains(name) ? t.at(name).view() : Tensor{};
                             };
                             ops.wkv7({at("r"),
                                       at("decay"),
                                       at("k"),
                                       at("v"),
                                       at("a"),
                                       at("g"),
                                       at("v_first"),
                                       at("v_gate"),
                                       at("k_k"),
                                       at("k_a"),
                                       at("r_k"),
                                       {at("weight"), at("bias")},
                                       state,
                                       out});
                           });
  s.tokens = tokens;
  s.state = head_state(random, shape, seed);
  s.expected = [=](int64_t t, Floats state) {
    return join_heads(heads, [&](int64_t h) {
      auto at = [&](const char* name) { return in.at(name, t, h * size, size); };
      auto square = static_cast<size_t>(size * size);
      return wkv7({at("r"), at("decay"), at("k"), at("v"), at("a"), at("g"), at("v_first"), at("v_gate"),
                   at("k_k"), at("k_a"), at("r_k"), at("weight"), at("bias"),
                   state.subspan(static_cast<size_t>(h) * square, square)});
    });
  };
  return s;
}

namespace {

template <class MakeSequence>
void check_heads(const Implementation& implementation, MakeSequence make_sequence) {
  int64_t seed = 0;
  for (Heads shape : head_shapes) {
    CAPTURE(shape.heads);
    CAPTURE(shape.size);
    CAPTURE(shape.tokens);
    CAPTURE(seed);
    check_sequence(implementation, make_sequence(shape, seed++));
  }
}

}  // namespace

void check_wkv4(const Implementation& implementation) {
  constexpr int64_t widths[] = {1, 7, 15, 16, 17, 31, 33, 64, 65, 100, 128, 300, 515};
  constexpr int64_t lengths[] = {1, 2, 3, 5, 11, 12, 13, 25, 64, 100};
  int64_t seed = 0;
  for (int repeat = 0; repeat < 2; repeat++) {
    for (int64_t width : widths) {
      int64_t tokens = lengths[seed % std::size(lengths)];
      CAPTURE(width);
      CAPTURE(tokens);
      CAPTURE(seed);
      check_sequence(implementation, wkv4_sequence(width, tokens, seed++));
    }
  }
}

void check_wkv5(const Implementation& implementation) {
  check_heads(implementation, [](Heads shape, int64_t seed) { return wkv5_sequence(shape, false, seed); });
}

void check_wkv6(const Implementation& implementation) {
  check_heads(implementation, [](Heads shape, int64_t seed) { return wkv5_sequence(shape, true, seed); });
}

void check_wkv7(const Implementation& implementation) {
  check_heads(implementation, [](Heads shape, int64_t seed) { return wkv7_sequence(shape, seed); });
}

}  // namespace rwkv::test
