#include "test/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace rwkv::test {
namespace {

// The value of an operation that rounds `roundings` times, with the error that its operands bring.
Estimate rounded(double value, double error, int roundings = 1) {
  if (!std::isfinite(value)) return value;
  return {value, error + roundings * fp32_rounding * (std::abs(value) + error)};
}

// A function of one variable that is monotone, or nearly so within the error of its argument.
template <class Function>
Estimate function(Function f, Estimate x, double relative, double absolute) {
  double value = f(x.value);
  if (!std::isfinite(value) || !std::isfinite(x.value)) return {value, absolute};
  double spread = std::max(std::abs(f(x.value + x.error) - value), std::abs(f(x.value - x.error) - value));
  return {value, spread + relative * (std::abs(value) + spread) + absolute};
}

}  // namespace

Estimate operator+(Estimate a, Estimate b) { return rounded(a.value + b.value, a.error + b.error); }
Estimate operator-(Estimate a, Estimate b) { return rounded(a.value - b.value, a.error + b.error); }

Estimate operator-(Estimate x) { return {-x.value, x.error}; }

Estimate operator*(Estimate a, Estimate b) {
  double error = std::abs(a.value) * b.error + std::abs(b.value) * a.error + a.error * b.error;
  return rounded(a.value * b.value, error + smallest_normal);
}

// Two roundings: it may be a product with the reciprocal.
Estimate operator/(Estimate a, Estimate b) {
  double value = a.value / b.value, least = std::abs(b.value) - b.error;
  double error = least > 0 ? (a.error + std::abs(value) * b.error) / least : HUGE_VAL;
  return rounded(value, error + smallest_normal, 2);
}

Estimate max(Estimate a, Estimate b) {
  if (std::isnan(a.value) || std::isnan(b.value)) return std::nan("");
  double value = std::max(a.value, b.value);
  double high = std::max(a.value + a.error, b.value + b.error);
  double low = std::max(a.value - a.error, b.value - b.error);
  return {value, std::isfinite(value) ? std::max(high - value, value - low) : 0};
}

Estimate sqrt(Estimate x) {
  return function([](double v) { return std::sqrt(std::max(v, 0.0)); }, x, fp32_rounding, smallest_normal);
}

Estimate exp(Estimate x) {
  return function([](double v) { return std::exp(v); }, x, function_accuracy, smallest_normal);
}

Estimate tanh(Estimate x) {
  return function([](double v) { return std::tanh(v); }, x, function_accuracy, smallest_normal);
}

Estimate sigmoid(Estimate x) {
  return function([](double v) { return 1 / (1 + std::exp(-v)); }, x, function_accuracy, smallest_normal);
}

Estimate silu(Estimate x) {
  return function([](double v) { return v / (1 + std::exp(-v)); }, x, function_accuracy, silu_underflow);
}

void Sum::add(Estimate term) {
  value_ += term.value;
  error_ += term.error;
  magnitude_ += std::abs(term.value) + term.error;
  count_++;
}

Estimate Sum::total() const {
  if (!std::isfinite(value_)) return value_;
  return {value_, error_ + static_cast<double>(count_) * fp32_rounding * magnitude_};
}

Estimates normalize(const Estimates& x, Floats weight, Floats bias, double epsilon) {
  auto count = static_cast<double>(x.size());
  Sum sum, squares;
  for (const Estimate& v : x) sum.add(v);
  Estimate mean = sum.total() / count;
  for (const Estimate& v : x) squares.add((v - mean) * (v - mean));
  Estimate deviation = sqrt(squares.total() / count + rounded(epsilon, 0));
  Estimates out;
  for (size_t i = 0; i < x.size(); i++) out.push_back((x[i] - mean) / deviation * weight[i] + bias[i]);
  return out;
}

Estimates layer_norm(Floats x, Floats weight, Floats bias) {
  return normalize({x.begin(), x.end()}, weight, bias, 1e-5);
}

// As Sum would have it, without the bookkeeping: a product and a sum for each weight, and two roundings for a
// scale that is applied to sums or inputs.
Estimate dot(Floats x, Floats weights) {
  double value = 0, magnitude = 0, flushed = 0;
  for (size_t i = 0; i < x.size(); i++) {
    double product = static_cast<double>(x[i]) * weights[i];
    value += product;
    magnitude += std::abs(product);
    if (std::min(std::abs(x[i]), std::abs(weights[i])) < smallest_normal) flushed += std::abs(product);
  }
  auto count = static_cast<double>(x.size());
  return std::isfinite(value)
             ? Estimate{value, (count + 2) * fp32_rounding * magnitude + flushed + count * smallest_normal}
             : value;
}

Estimate apply(Epilogue epilogue, Estimate y, const EpilogueInputs& in) {
  switch (epilogue) {
    case Epilogue::none:
      return y;
    case Epilogue::add:
      return in.out + y;
    case Epilogue::gated_add:
      return in.out + in.a * y;
    case Epilogue::tanh:
      return tanh(y);
    case Epilogue::sigmoid:
      return sigmoid(y);
    case Epilogue::silu:
      return silu(y);
    case Epilogue::relu_squared: {
      Estimate positive = max(y, 0);
      return positive * positive;
    }
    case Epilogue::biased_sigmoid:
      return sigmoid(in.bias + y);
    case Epilogue::biased_mix:
      return in.a + (Estimate(in.b) - in.a) * (in.bias + y);
    case Epilogue::decay6:
      return exp(-exp(in.bias + y));
    case Epilogue::decay7:
      return exp(rounded(-0.606531, 0) * sigmoid(in.bias + y));
  }
  return std::nan("");
}

Step token_shift(Floats x, Floats weight, Floats bias, Floats state, const std::vector<Floats>& mixes) {
  Step step;
  step.state = layer_norm(x, weight, bias);
  step.out = step.state;
  for (Floats mix : mixes) {
    for (size_t i = 0; i < x.size(); i++) {
      step.out.push_back(step.state[i] + (state[i] - step.state[i]) * mix[i]);
    }
  }
  return step;
}

Step wkv4(const Wkv4Token& in) {
  size_t width = in.r.size();
  Floats aa = in.state.first(width), bb = in.state.subspan(width, width), pp = in.state.last(width);
  Step step{Estimates(width), Estimates(3 * width)};
  for (size_t i = 0; i < width; i++) {
    Estimate bonus = Estimate(in.first[i]) + in.k[i], q = max(pp[i], bonus);
    Estimate e1 = exp(pp[i] - q), e2 = exp(bonus - q);
    step.out[i] = in.r[i] * ((e1 * aa[i] + e2 * in.v[i]) / (e1 * bb[i] + e2));
    Estimate decayed = Estimate(in.decay[i]) + pp[i];
    q = max(decayed, in.k[i]);
    e1 = exp(decayed - q);
    e2 = exp(in.k[i] - q);
    step.state[i] = e1 * aa[i] + e2 * in.v[i];
    step.state[width + i] = e1 * bb[i] + e2;
    step.state[2 * width + i] = q;
  }
  return step;
}

Step wkv5(const Wkv5Token& in) {
  size_t n = in.r.size();
  Step step{{}, Estimates(n * n)};
  for (size_t j = 0; j < n; j++) {
    Sum y;
    for (size_t i = 0; i < n; i++) {
      Estimate s = in.state[i * n + j], kv = Estimate(in.k[i]) * in.v[j];
      y.add(in.r[i] * (in.first[i] * kv + s));
      step.state[i * n + j] = kv + in.decay[i] * s;
    }
    step.out.push_back(y.total());
  }
  step.out = normalize(step.out, in.weight, in.bias, 64e-5);
  for (size_t j = 0; j < n && !in.gate.empty(); j++) step.out[j] = step.out[j] * in.gate[j];
  return step;
}

Step wkv7(const Wkv7Token& in) {
  size_t n = in.r.size();
  Estimates kk(n), key(n), value(n);
  Sum squares, bonus;
  for (size_t i = 0; i < n; i++) {
    kk[i] = Estimate(in.k[i]) * in.k_k[i];
    squares.add(kk[i] * kk[i]);
    key[i] = in.k[i] * (1.0 + (Estimate(in.a[i]) - 1.0) * in.k_a[i]);
    bonus.add(in.r[i] * key[i] * in.r_k[i]);
    value[i] = in.v[i];
    if (!in.v_first.empty()) value[i] = value[i] + (in.v_first[i] - value[i]) * in.v_gate[i];
  }
  Estimate length = max(sqrt(squares.total()), rounded(1e-12, 0));
  for (Estimate& x : kk) x = x / length;

  Step step{{}, Estimates(n * n)};
  for (size_t j = 0; j < n; j++) {
    Sum removed, y;
    for (size_t i = 0; i < n; i++) removed.add(kk[i] * in.state[i * n + j]);
    Estimate sa = -removed.total();
    for (size_t i = 0; i < n; i++) {
      Estimate& s = step.state[i * n + j];
      s = Estimate(in.decay[i]) * in.state[i * n + j] + kk[i] * in.a[i] * sa + key[i] * value[j];
      y.add(in.r[i] * s);
    }
    step.out.push_back(y.total());
  }
  step.out = normalize(step.out, in.weight, in.bias, 64e-5);
  for (size_t j = 0; j < n; j++) step.out[j] = (step.out[j] + bonus.total() * value[j]) * in.g[j];
  return step;
}

bool agrees(float actual, const Estimate& expected) {
  if (std::isnan(expected.value)) return std::isnan(actual);
  if (std::isinf(expected.value)) return actual == expected.value;
  if (std::isinf(actual)) {  // right when the value may round to it
    return std::copysign(1.0, actual) * expected.value + expected.error >= FLT_MAX;
  }
  // Never for NaN. A bound that is no number would prove nothing.
  return std::isfinite(expected.error) && std::abs(actual - expected.value) <= expected.error;
}

std::string mismatch(Floats actual, const Estimates& expected) {
  if (actual.size() != expected.size()) {
    return fmt::format("{} values instead of {}", actual.size(), expected.size());
  }
  for (size_t i = 0; i < actual.size(); i++) {
    if (!agrees(actual[i], expected[i])) {
      return fmt::format("[{}] is {} but should be {} +- {}", i, actual[i], expected[i].value,
                         expected[i].error);
    }
  }
  return "";
}

}  // namespace rwkv::test
