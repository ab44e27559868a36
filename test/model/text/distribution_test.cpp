#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "core/json.h"
#include "test/model/text/distributions.h"
#include "test/support.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {
namespace {

double number(const Json& json) {
  if (const auto* x = std::get_if<double>(&json.value)) return *x;
  if (const auto* x = std::get_if<int64_t>(&json.value)) return static_cast<double>(*x);
  return static_cast<double>(std::get<uint64_t>(json.value));
}

double number(const Json& object, const char* key) {
  const Json* member = object.find(key);
  REQUIRE(member != nullptr);
  return number(*member);
}

/// Steps 4 to 7 by the letter, from the softmax that the sampler found.
std::vector<double> cut_by_the_letter(const Distribution& found, size_t vocabulary,
                                      const SamplerOptions& options) {
  const auto p = [&](int32_t id) { return found.softmax[static_cast<size_t>(id)]; };
  Ids order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return p(a) < p(b); });
  float cutoff = p(order.back());
  float sum = 0;
  for (size_t i = vocabulary; i-- > 0;) {
    sum += p(order[i]);
    if (sum >= options.top_p) {
      cutoff = p(order[i]);
      break;
    }
  }
  std::vector<double> weights(vocabulary);
  const size_t ranks = options.top_k == 0 ? vocabulary : static_cast<size_t>(options.top_k);
  for (size_t i = vocabulary - std::min(ranks, vocabulary); i < vocabulary; ++i) {
    const double x = p(order[i]);
    if (p(order[i]) >= cutoff)
      weights[static_cast<size_t>(order[i])] = std::pow(x, 1.0 / options.temperature);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= total;
  return weights;
}

}  // namespace

TEST_CASE("distribution: the reference's probabilities are reproduced") {
  std::istringstream lines(read_file(data_path("sampler.jsonl")));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    CAPTURE(count);
    const Json json = parse_json(line, "sampler.jsonl");
    SamplerOptions options;
    options.temperature = static_cast<float>(number(json, "temperature"));
    options.top_p = static_cast<float>(number(json, "top_p"));
    options.top_k = static_cast<int>(number(json, "top_k"));
    Floats logits;
    for (const Json& x : *json.find("logits")->array()) logits.push_back(static_cast<float>(number(x)));
    std::vector<double> expected;
    for (const Json& x : *json.find("probs")->array()) expected.push_back(number(x));
    const Distribution found = distribution_of(logits, options);
    CHECK(largest_difference(dense(found, logits.size()), expected) < 1e-6);
  }
  CHECK(count == 60);
}

TEST_CASE("distribution: the softmax is that of double precision up to fp32's roundings") {
  std::mt19937 random(1);
  for (const size_t vocabulary : {1, 2, 15, 16, 17, 320, 65536}) {
    std::normal_distribution<float> normal(0, 8);
    Floats logits(vocabulary);
    for (float& x : logits) x = std::round(normal(random) * 64) / 64;  // so that x - max is exact
    const Distribution found = distribution_of(logits, open_options());
    const double max = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float x : logits) total += std::exp(x - max);
    double error = 0;
    for (size_t i = 0; i < vocabulary; ++i) {
      const double exact = std::exp(logits[i] - max) / total;
      error = std::max(error, std::abs(found.softmax[i] / exact - 1));
    }
    // Roundings of half a unit (2^-24): the terms of each of 16 sums, 4 to join them, one each for the
    // reciprocal and the product, and one unit for exp.
    CHECK(error < (std::ceil(static_cast<double>(vocabulary) / 16) + 8) * 0x1p-24);
  }
}

TEST_CASE("distribution: exp is within its rounding of the exact one, and 0 below e^-86") {
  double error = 0;
  for (int i = 0; i <= 86'000; i += 7) {
    const float x = static_cast<float>(-i) / 1000;
    const Distribution found = distribution_of({0, x}, open_options());
    const double ratio = static_cast<double>(found.softmax[1]) / found.softmax[0];
    error = std::max(error, std::abs(ratio / std::exp(x) - 1));
  }
  CHECK(error < 2.1 * 0x1p-24);  // half a unit each for exp and for the product with the reciprocal
  const Distribution found = distribution_of({0, -86.01f, -1000, -infinity}, open_options());
  CHECK(Floats(found.softmax.begin(), found.softmax.begin() + 4) == Floats{1, 0, 0, 0});
}

TEST_CASE("distribution: cuts agree with the definition, ties included") {
  std::mt19937 random(2);
  for (int round = 0; round < 3'000; ++round) {
    const size_t vocabulary = 1 + random() % (round % 100 == 0 ? 20'000 : 300);
    const bool ties = round % 2 == 0;
    const auto spread = static_cast<float>(1 + random() % 6);
    Floats logits(vocabulary);
    std::normal_distribution<float> normal(0, spread);
    for (float& x : logits) x = ties ? std::round(normal(random)) : normal(random);
    SamplerOptions options;
    constexpr float top_p[] = {0, 0.1f, 0.3f, 0.5f, 0.85f, 0.95f, 0.999f, 1};
    options.top_p = top_p[random() % 8];
    constexpr int top_k[] = {0, 0, 1, 3, 10, 100, 1'000'000};
    options.top_k = top_k[random() % 7];
    constexpr float temperature[] = {0.2f, 0.7f, 1, 1, 1.5f, 3};
    options.temperature = temperature[random() % 6];
    const Distribution found = distribution_of(logits, options);
    CAPTURE(round);
    REQUIRE(std::is_sorted(found.ids.begin(), found.ids.end()));
    const std::vector<double> expected = cut_by_the_letter(found, vocabulary, options);
    REQUIRE(largest_difference(dense(found, vocabulary), expected) < 1e-6);
    REQUIRE(static_cast<size_t>(std::count_if(expected.begin(), expected.end(),
                                              [](double x) { return x > 0; })) == found.ids.size());
  }
}

TEST_CASE("distribution: a probability on the border of two levels counts once") {
  Floats logits(512, 0.0f);  // half of all, each exactly 2^-10; the other half is in the level below
  double rest = 512;
  for (float x = -2; rest > 0.5; x -= 0x1p-13f) {
    logits.push_back(x);
    rest -= std::exp(x);
  }
  logits.push_back(static_cast<float>(std::log(rest)));
  SamplerOptions options;
  options.top_p = 0.75f;
  Distribution found = distribution_of(logits, options);
  for (int i = 0; i < 10 && found.softmax[0] != 0x1p-10f; ++i) {  // the sum in fp32 is not quite 1024 yet
    rest += 1024 - 1 / static_cast<double>(found.softmax[0]);
    logits.back() = static_cast<float>(std::log(rest));
    found = distribution_of(logits, options);
  }
  REQUIRE(found.softmax[0] == 0x1p-10f);
  CHECK(largest_difference(dense(found, logits.size()), cut_by_the_letter(found, logits.size(), options)) <
        1e-6);
  CHECK(found.ids.size() > 2000);
}

TEST_CASE("distribution: top_p keeps the equals of the cutoff, top_k the higher ids among equals") {
  const Floats logits = {1, 2, 2, 0, 2, 2, 1};
  SamplerOptions options;
  options.top_p = 0;
  CHECK(distribution_of(logits, options).ids == Ids{1, 2, 4, 5});
  CHECK(distribution_of(logits, options).probabilities == std::vector<double>(4, 0.25));
  options.top_k = 3;
  CHECK(distribution_of(logits, options).ids == Ids{2, 4, 5});
  options.top_k = 1;
  CHECK(distribution_of(logits, options).ids == Ids{5});
  options.top_p = 0.99f;
  options.top_k = 5;
  CHECK(distribution_of(logits, options).ids == Ids{1, 2, 4, 5, 6});
  options.top_k = 7;
  CHECK(distribution_of(logits, options).ids == Ids{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("distribution: a sum that stops short of top_p leaves the maximum alone") {
  Floats logits(65536, -18.5f);  // each of these is lost in a sum near 1, though together they are 0.0006
  logits[77] = 0;
  SamplerOptions options;
  options.top_p = 1;
  CHECK(distribution_of(logits, options).ids == Ids{77});
  options.top_p = 0.9999f;
  CHECK(distribution_of(logits, options).ids == Ids{77});
}

TEST_CASE("distribution: temperature 0 takes the first maximum after bans and penalties") {
  SamplerOptions options;
  options.temperature = 0;
  CHECK(distribution_of({1, 3, 2, 3}, options).ids == Ids{1});
  CHECK(distribution_of({1, 3, 2, 3}, options).probabilities == std::vector<double>{1});
  options.banned = {1};
  CHECK(distribution_of({1, 3, 2, 3}, options).ids == Ids{3});
  options.presence_penalty = 1.5f;
  PenaltyTable penalties;
  penalties.accept(3, "x", 1);
  CHECK(distribution_of({1, 3, 2, 3}, options, penalties).ids == Ids{2});
}

TEST_CASE("distribution: a very low temperature is greedy among what the cuts leave, and never 0 / 0") {
  SamplerOptions options = open_options();
  for (const float temperature : {1e-3f, 1e-30f, std::numeric_limits<float>::denorm_min()}) {
    options.temperature = temperature;
    CHECK(dense(distribution_of({1, 3, 2, 3}, options), 4) == std::vector<double>{0, 0.5, 0, 0.5});
    Sampler sampler(options);
    for (int i = 0; i < 50; ++i) CHECK(sampler.sample(Floats{1, 2, 3, 2}) == 2);
  }
  options.temperature = std::numeric_limits<float>::max();
  CHECK(largest_difference(dense(distribution_of({1, 3, 2, 3}, options), 4), std::vector<double>(4, 0.25)) <
        1e-15);
}

TEST_CASE("distribution: banned tokens are never drawn, whatever the model wants") {
  SamplerOptions options = open_options();
  Floats logits(65536, 0.0f);
  for (int32_t id = 100; id < 65536; ++id) options.banned.push_back(id);
  for (const int32_t id : options.banned) logits[static_cast<size_t>(id)] = 50;
  options.banned.push_back(5);
  options.banned.push_back(5);
  const Distribution found = distribution_of(logits, options);
  CHECK(found.ids.size() == 99);
  CHECK(std::find(found.ids.begin(), found.ids.end(), 5) == found.ids.end());
  CHECK(found.ids.back() == 99);
  CHECK(distribution_of({-infinity, 0, -infinity}, open_options()).ids == Ids{1});
}

TEST_CASE("distribution: logits that are no numbers are refused by token") {
  Floats logits(1000, 1.0f);
  logits[997] = nan;
  const std::string what =
      " as the logit of token 997: its weights are damaged or too large for this precision; "
      "verify the model file or try another strategy";
  CHECK(error_of([&] { distribution_of(logits, open_options()); }) == "the model produced NaN" + what);
  logits[997] = -nan;
  CHECK(error_of([&] { distribution_of(logits, open_options()); }) == "the model produced NaN" + what);
  SamplerOptions greedy;
  greedy.temperature = 0;
  greedy.banned = {997};
  CHECK(error_of([&] { distribution_of(logits, greedy); }) == "the model produced NaN" + what);
  logits[997] = infinity;
  CHECK(error_of([&] { distribution_of(logits, open_options()); }) == "the model produced infinity" + what);
}

TEST_CASE("distribution: without a token to draw there is an error") {
  SamplerOptions options;
  options.banned = {1, 0};
  const std::string all_banned = "every token is banned: there is none to draw";
  CHECK(error_of([&] { distribution_of({1, 2}, options); }) == all_banned);
  CHECK(error_of([&] { distribution_of({-infinity}, open_options()); }) == all_banned);
  CHECK(error_of([&] { distribution_of({}, open_options()); }) == "there are no logits to draw a token from");
  CHECK(error_of([&] { distribution_of({1}, options); }) ==
        "token 1 cannot be banned: the vocabulary has 1 tokens");
  PenaltyTable penalties;
  penalties.accept(3, "x", 1);
  CHECK(error_of([&] {
          distribution_of({1, 2, 3}, open_options(), penalties);
        }) == "token 3 cannot have a penalty: the vocabulary has 3 tokens");
}

TEST_CASE("distribution: the largest logits and penalties stay numbers") {
  constexpr float most = std::numeric_limits<float>::max();
  SamplerOptions options = open_options();
  CHECK(dense(distribution_of({most, -most, most}, options), 3) == std::vector<double>{0.5, 0, 0.5});
  options.presence_penalty = -1000;
  options.frequency_penalty = 1000;
  PenaltyTable penalties;
  for (int i = 0; i < 1000; ++i) penalties.accept(1, "x", 1);
  CHECK(distribution_of({-most, -most, -most}, options, penalties).ids == Ids{0, 1, 2});
  CHECK(distribution_of({0, 0, -1}, options, penalties).ids == Ids{0, 2});
}

TEST_CASE("distribution: once grown, memory is used again") {
  std::mt19937 random(4);
  Distribution distribution;
  SamplerOptions options = open_options();
  options.top_k = 500;
  Floats logits(5000);
  std::normal_distribution<float> normal(0, 3);
  const auto addresses = [&] {
    return std::vector<const void*>{distribution.logits.data(),       distribution.softmax.data(),
                                    distribution.level.data(),        distribution.sorted.data(),
                                    distribution.ranked.data(),       distribution.ids.data(),
                                    distribution.probabilities.data()};
  };
  for (float& x : logits) x = normal(random);
  compute_distribution(logits, options, {}, distribution);
  const std::vector<const void*> first = addresses();
  for (int i = 0; i < 20; ++i) {
    for (float& x : logits) x = normal(random);
    compute_distribution(logits, options, {}, distribution);
    CHECK(addresses() == first);
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
