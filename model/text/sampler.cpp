#include "model/text/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "cpu/features.h"

namespace rwkv {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Passes over the vocabulary are kernels. They take blocks: the last one is padded with tokens of
/// probability 0.
constexpr size_t block_size = 16;

const cpu::Kernels& kernels() {
  static const cpu::Kernels& chosen = cpu::choose_kernels();
  return chosen;
}

void check_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return;  // false for NaN
  throw Error(fmt::format("{} must be a number from {} to {}, not {}", name, low, high, value));
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
  if (!kernels().all_in_range(result, -infinity, infinity)) refuse_logits(logits);
  for (const int32_t id : banned) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) {
      throw Error(fmt::format("token {} cannot be banned: the vocabulary has {} tokens", id, logits.size()));
    }
    result[static_cast<size_t>(id)] = -infinity;
  }
}

/// Sorts `values` in descending order, through `scratch` of the same length, and returns where they lie then.
/// The values are from 0 to 1: their bits order them like integers.
std::span<const float> sort_descending(std::span<float> values, std::span<float> scratch) {
  constexpr uint32_t digits = 256;
  const auto digit = [](float x, size_t place) {
    return digits - 1 - (std::bit_cast<uint32_t>(x) >> (8 * place)) % digits;
  };
  std::array<std::array<uint32_t, digits>, 4> counts{};
  for (const float x : values) {
    for (size_t place = 0; place < counts.size(); ++place) ++counts[place][digit(x, place)];
  }
  for (size_t place = 0; place < counts.size(); ++place) {
    std::array<uint32_t, digits>& next = counts[place];
    if (values.empty() || next[digit(values[0], place)] == values.size()) continue;  // all have this digit
    std::exclusive_scan(next.begin(), next.end(), next.begin(), 0U);
    for (const float x : values) scratch[next[digit(x, place)]++] = x;
    std::swap(values, scratch);
  }
  return values;
}

/// The probabilities in [lower, upper), in descending order.
std::span<const float> collect_level(float lower, float upper, Distribution& scratch) {
  const std::vector<float>& softmax = scratch.softmax;
  scratch.ranked.resize(softmax.size());
  scratch.level.resize(softmax.size());
  scratch.sorted.resize(softmax.size());
  const auto count =
      static_cast<size_t>(kernels().find_in_range(softmax, lower, upper, scratch.ranked.data()));
  for (size_t i = 0; i < count; ++i) scratch.level[i] = softmax[static_cast<size_t>(scratch.ranked[i])];
  return sort_descending(std::span(scratch.level).first(count), std::span(scratch.sorted).first(count));
}

/// The cutoff of step 4. Sorting the whole vocabulary would cost more than all the rest, so the probabilities
/// are taken in levels: at most 2^10 of them are 2^-10 or more, and these are nearly always enough. Where the
/// probabilities are flat, a vocabulary lies between 2^-10 and 2^-20.
float find_cutoff(float top_p, Distribution& scratch) {
  constexpr float first = 0x1p-10f, last = 0x1p-20f, least = std::numeric_limits<float>::min();
  float sum = 0;
  float upper = infinity;
  for (float lower = first; upper > least; lower = lower > last ? lower / 2 : least) {
    for (const float p : collect_level(lower, upper, scratch)) {
      const float next = sum + p;
      if (next >= top_p) return p;
      if (next == sum) return kernels().maximum(scratch.softmax);  // smaller terms will not change it either
      sum = next;
    }
    upper = lower;
  }
  return kernels().maximum(scratch.softmax);
}

/// Steps 4 and 5: fills `result.ids`.
void cut(const SamplerOptions& options, Distribution& result) {
  const std::vector<float>& p = result.softmax;
  const float cutoff = find_cutoff(options.top_p, result);
  std::vector<int32_t>& ranked = result.ranked;
  ranked.resize(p.size());
  const auto count = static_cast<size_t>(kernels().find_in_range(p, cutoff, infinity, ranked.data()));
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
  check_range("temperature", options.temperature, 0, max_temperature);
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
  const float max = kernels().maximum(result.logits);
  if (max == -infinity) throw Error("every token is banned: there is none to draw");
  if (options.temperature == 0) {
    const auto first = std::find(result.logits.begin(), result.logits.end(), max);
    result.ids.assign(1, static_cast<int32_t>(first - result.logits.begin()));
    result.probabilities.assign(1, 1.0);
    return;
  }
  result.softmax.resize(result.logits.size());
  kernels().softmax(result.logits, max, result.softmax.data());
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
