#include "model/text/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Passes over the vocabulary take blocks of four vectors, the last one padded with tokens of probability 0.
// Sums have the same order on every machine, since these vectors are what every x86-64 has.
using Floats __attribute__((vector_size(16))) = float;
using Words __attribute__((vector_size(16))) = uint32_t;
constexpr size_t block_size = 16;

Floats splat(float x) { return Floats{x, x, x, x}; }

Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

void store(Floats x, float* to) { std::memcpy(to, &x, sizeof(x)); }

void check_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return;  // false for NaN
  throw Error(high < std::numeric_limits<float>::max()
                  ? fmt::format("{} must be a number from {} to {}, not {}", name, low, high, value)
                  : fmt::format("{} must be a finite number of at least {}, not {}", name, low, value));
}

/// Throws for the first logit that no softmax can take.
[[noreturn]] void refuse_logits(std::span<const float> logits) {
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return !(x < infinity); });
  throw Error(fmt::format(
      "the model produced {} as the logit of token {}: its weights are damaged or too large for this "
      "precision; verify the model file or try another strategy",
      std::isnan(*bad) ? "NaN" : "infinity", bad - logits.begin()));
}

/// Fills `result` with the logits, bans applied, and the padding.
void load_logits(std::span<const float> logits, const std::vector<int32_t>& banned,
                 std::vector<float>& result) {
  if (logits.empty()) throw Error("there are no logits to draw a token from");
  result.resize((logits.size() + block_size - 1) / block_size * block_size);
  std::copy(logits.begin(), logits.end(), result.begin());
  std::fill(result.begin() + static_cast<std::ptrdiff_t>(logits.size()), result.end(), -infinity);
  Words bad{};
  for (size_t i = 0; i < result.size(); i += 4) {
    bad |= std::bit_cast<Words>(~(load(&result[i]) < splat(infinity)));
  }
  if ((bad[0] | bad[1] | bad[2] | bad[3]) != 0) refuse_logits(logits);
  for (const int32_t id : banned) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) {
      throw Error(fmt::format("token {} cannot be banned: the vocabulary has {} tokens", id, logits.size()));
    }
    result[static_cast<size_t>(id)] = -infinity;
  }
}

float maximum(const std::vector<float>& values) {
  Floats most = splat(-infinity);
  for (size_t i = 0; i < values.size(); i += 4) {
    const Floats x = load(&values[i]);
    most = x > most ? x : most;
  }
  return std::max(std::max(most[0], most[1]), std::max(most[2], most[3]));
}

/// exp(x) for x <= 0, nearly always the fp32 number next to it, and 0 below the normal numbers. Own code
/// because a seed should give the same text whatever the C library.
inline Floats exp_of_negative(Floats x) {
  const Floats lowest = splat(-86.0f);  // the result is still a normal number
  const Floats log2_e = splat(1.44269504f);
  const Floats ln2_high = splat(0.693359375f);  // few bits, so that its product with n is exact
  const Floats ln2_low = splat(-2.12194440e-4f);
  const Floats to_integer = splat(0x1.8p23f);  // adding it leaves a rounded integer in the low bits
  const Floats clamped = x < lowest ? lowest : x;
  const Floats shifted = clamped * log2_e + to_integer;
  const Floats n = shifted - to_integer;
  const Floats high = clamped - n * ln2_high;
  const Floats r = high - n * ln2_low;
  const Floats r_error = (high - r) - n * ln2_low;
  // The exponential series to r^7; |r| <= ln(2) / 2, so the next term is below 6e-9.
  Floats series = splat(1.0f / 5040) * r + splat(1.0f / 720);
  series = series * r + splat(1.0f / 120);
  series = series * r + splat(1.0f / 24);
  series = series * r + splat(1.0f / 6);
  series = series * r + splat(0.5f);
  const Floats leading = splat(1.0f) + r;
  const Floats leading_error = r - (leading - splat(1.0f));
  const Floats fraction = leading + (leading_error + (r * r * series + r_error));
  const Words exponent = std::bit_cast<Words>(shifted) << 23;
  const Floats result = std::bit_cast<Floats>(std::bit_cast<Words>(fraction) + exponent);
  return x < lowest ? splat(0.0f) : result;
}

/// Step 3, for a maximum that is finite. Sixteen sums in fp32 and a product with the reciprocal are the
/// package's arithmetic too, and a top_p of 1 feels the difference.
void compute_softmax(const std::vector<float>& logits, float max, std::vector<float>& result) {
  result.resize(logits.size());
  std::array<Floats, 4> sums{};
  for (size_t i = 0; i < logits.size(); i += block_size) {
    const auto step = [&](size_t at, Floats& sum) {
      const Floats e = exp_of_negative(load(&logits[at]) - splat(max));
      store(e, &result[at]);
      sum += e;
    };
    step(i, sums[0]);
    step(i + 4, sums[1]);
    step(i + 8, sums[2]);
    step(i + 12, sums[3]);
  }
  const Floats sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  const Floats scale = splat(1.0f / ((sum[0] + sum[2]) + (sum[1] + sum[3])));
  for (size_t i = 0; i < result.size(); i += 4) store(load(&result[i]) * scale, &result[i]);
}

/// Calls visit(id) for the tokens of every block that holds a probability of at least `lower`.
template <class Visit>
void visit_blocks(const std::vector<float>& softmax, float lower, Visit&& visit) {
  for (size_t i = 0; i < softmax.size(); i += block_size) {
    const float* p = &softmax[i];
    const auto found = std::bit_cast<Words>((load(p) >= splat(lower)) | (load(p + 4) >= splat(lower)) |
                                            (load(p + 8) >= splat(lower)) | (load(p + 12) >= splat(lower)));
    if ((found[0] | found[1] | found[2] | found[3]) == 0) continue;
    for (size_t id = i; id < i + block_size; ++id) visit(id);
  }
}

/// Sorts `values` in descending order, through `scratch` of the same length, and returns where they lie then.
/// The values are from 0 to 1: their bits, 30 at most, order them like integers.
std::span<const float> sort_descending(std::span<float> values, std::span<float> scratch) {
  constexpr uint32_t digits = 1024;
  for (const int shift : {0, 10, 20}) {
    const auto digit = [shift](float x) {
      return digits - 1 - (std::bit_cast<uint32_t>(x) >> shift) % digits;
    };
    std::array<uint32_t, digits> next{};
    for (const float x : values) ++next[digit(x)];
    std::exclusive_scan(next.begin(), next.end(), next.begin(), 0U);
    for (const float x : values) scratch[next[digit(x)]++] = x;
    std::swap(values, scratch);
  }
  return values;
}

/// The probabilities in [lower, upper), in descending order. Writing each and keeping some is faster than a
/// branch that cannot be predicted.
std::span<const float> collect_level(float lower, float upper, Distribution& scratch) {
  const std::vector<float>& softmax = scratch.softmax;
  scratch.level.resize(softmax.size());
  scratch.sorted.resize(softmax.size());
  size_t count = 0;
  visit_blocks(softmax, lower, [&](size_t id) {
    const float p = softmax[id];
    scratch.level[count] = p;
    count += static_cast<size_t>(p >= lower) & static_cast<size_t>(p < upper);
  });
  return sort_descending(std::span(scratch.level).first(count), std::span(scratch.sorted).first(count));
}

/// The cutoff of step 4. Sorting the whole vocabulary would cost more than all the rest, so the probabilities
/// are taken in levels: at most 2^10 of them are 2^-10 or more, and these are nearly always enough.
float find_cutoff(float top_p, Distribution& scratch) {
  float sum = 0;
  float upper = infinity;
  for (const float lower : {0x1p-10f, 0x1p-14f, 0x1p-18f, std::numeric_limits<float>::min()}) {
    for (const float p : collect_level(lower, upper, scratch)) {
      const float next = sum + p;
      if (next >= top_p) return p;
      if (next == sum) return maximum(scratch.softmax);  // smaller terms will not change it either
      sum = next;
    }
    upper = lower;
  }
  return maximum(scratch.softmax);
}

/// Steps 4 and 5: fills `result.ids`.
void cut(const SamplerOptions& options, Distribution& result) {
  const std::vector<float>& p = result.softmax;
  const float cutoff = find_cutoff(options.top_p, result);
  std::vector<int32_t>& ranked = result.ranked;
  ranked.resize(p.size());
  size_t count = 0;
  visit_blocks(p, cutoff, [&](size_t id) {
    ranked[count] = static_cast<int32_t>(id);
    count += p[id] >= cutoff ? 1 : 0;
  });
  const auto end = ranked.begin() + static_cast<std::ptrdiff_t>(count);
  result.ids.reserve(p.size());
  result.ids.assign(ranked.begin(), end);

  const auto top_k = static_cast<size_t>(options.top_k);
  if (top_k == 0 || top_k >= count) return;
  const auto ranks_before = [&p](int32_t a, int32_t b) {
    const float pa = p[static_cast<size_t>(a)];
    const float pb = p[static_cast<size_t>(b)];
    return pa > pb || (pa == pb && a > b);
  };
  const auto last = ranked.begin() + options.top_k - 1;
  std::nth_element(ranked.begin(), last, end, ranks_before);
  std::erase_if(result.ids, [&](int32_t id) { return ranks_before(*last, id); });
}

/// Steps 6 and 7. p^(1/T) is proportional to exp((logit - max) / T), which cannot underflow to 0 for all
/// tokens.
void weigh(double temperature, float max, Distribution& result) {
  std::vector<double>& weights = result.probabilities;
  weights.reserve(result.softmax.size());
  weights.resize(result.ids.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto id = static_cast<size_t>(result.ids[i]);
    weights[i] = temperature == 1 ? static_cast<double>(result.softmax[id])
                                  : std::exp((static_cast<double>(result.logits[id]) - max) / temperature);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight *= 1 / total;
}

}  // namespace

void check_options(const SamplerOptions& options) {
  constexpr double most = std::numeric_limits<float>::max();
  check_range("temperature", options.temperature, 0, most);
  check_range("top_p", options.top_p, 0, 1);
  check_range("presence_penalty", options.presence_penalty, -1000, 1000);
  check_range("frequency_penalty", options.frequency_penalty, -1000, 1000);
  check_range("penalty_decay", options.penalty_decay, 0, 1);
  if (options.top_k < 0) {
    throw Error(fmt::format("top_k must be a whole number of at least 0, not {}", options.top_k));
  }
  for (const int32_t id : options.banned) {
    if (id < 0) throw Error(fmt::format("banned tokens are ids of at least 0, not {}", id));
  }
}

RandomNumbers::RandomNumbers(uint64_t seed) : state_{} {
  for (uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

uint64_t RandomNumbers::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void PenaltyTable::accept(int32_t token, std::string_view token_bytes, float decay) {
  constexpr std::string_view uncounted = " \t0123456789";
  const double growth = uncounted.find(token_bytes) == std::string_view::npos ? 1 : 0;
  Seen* known = nullptr;
  for (Seen& seen : seen_) {
    seen.count *= static_cast<double>(decay);
    if (seen.token == token) known = &seen;
  }
  if (known != nullptr) {
    known->count += growth;
  } else {
    seen_.push_back({token, growth});
  }
}

void PenaltyTable::apply(float presence, float frequency, std::span<float> logits) const {
  for (const Seen& seen : seen_) {
    if (seen.token < 0 || static_cast<size_t>(seen.token) >= logits.size()) {
      throw Error(fmt::format("token {} cannot have a penalty: the vocabulary has {} tokens", seen.token,
                              logits.size()));
    }
    const double cost = static_cast<double>(presence) + seen.count * static_cast<double>(frequency);
    logits[static_cast<size_t>(seen.token)] -= static_cast<float>(cost);
  }
}

void compute_distribution(std::span<const float> logits, const SamplerOptions& options,
                          const PenaltyTable& penalties, Distribution& result) {
  load_logits(logits, options.banned, result.logits);
  penalties.apply(options.presence_penalty, options.frequency_penalty,
                  std::span(result.logits).first(logits.size()));
  const float max = maximum(result.logits);
  if (max == -infinity) throw Error("every token is banned: there is none to draw");
  if (options.temperature == 0) {
    const auto first = std::find(result.logits.begin(), result.logits.end(), max);
    result.ids.assign(1, static_cast<int32_t>(first - result.logits.begin()));
    result.probabilities.assign(1, 1.0);
    return;
  }
  compute_softmax(result.logits, max, result.softmax);
  cut(options, result);
  weigh(options.temperature, max, result);
}

Sampler::Sampler(SamplerOptions options) : options_(std::move(options)), random_(options_.seed) {
  check_options(options_);
}

void Sampler::set(SamplerOptions options) {
  check_options(options);
  if (options.seed != options_.seed) random_ = RandomNumbers(options.seed);
  options_ = std::move(options);
}

int32_t Sampler::sample(std::span<const float> logits) {
  const double u = random_.uniform();
  compute_distribution(logits, options_, penalties_, distribution_);
  int32_t choice = 0;
  double sum = 0;
  for (size_t i = 0; i < distribution_.ids.size(); ++i) {
    if (distribution_.probabilities[i] == 0) continue;  // underflow of a low temperature
    choice = distribution_.ids[i];  // the last one, should rounding leave the whole sum at u or below
    sum += distribution_.probabilities[i];
    if (sum > u) break;
  }
  return choice;
}

void Sampler::accept(int32_t token, std::string_view token_bytes) {
  penalties_.accept(token, token_bytes, options_.penalty_decay);
}

}  // namespace rwkv
