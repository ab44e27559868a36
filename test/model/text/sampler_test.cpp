#include "model/text/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "test/model/text/distributions.h"
#include "test/support.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {

TEST_CASE("sampler: penalties cost presence once and frequency by the count, which decays at each token") {
  PenaltyTable penalties;
  Floats logits(4);
  penalties.apply(0.5f, 0.25f, logits);
  CHECK(logits == Floats{0, 0, 0, 0});
  penalties.accept(2, "word", 0.5f);  // 1
  penalties.accept(3, "word", 0.5f);  // 0.5, 1
  penalties.accept(2, "word", 0.5f);  // 1.25, 0.5
  penalties.apply(0.5f, 0.25f, logits);
  CHECK(logits == Floats{0, 0, -0.8125f, -0.625f});
  penalties.apply(-1, 0, logits);
  CHECK(logits == Floats{0, 0, 0.1875f, 0.375f});
  penalties.clear();
  penalties.apply(1, 1, logits);
  CHECK(logits == Floats{0, 0, 0.1875f, 0.375f});
}

TEST_CASE("sampler: pieces of space, tab and the digits cost presence only") {
  for (const char* bytes : {" ", "\t", "7", "12", "0123456789", " \t", ""}) {
    PenaltyTable penalties;
    Floats logits(1);
    for (int i = 0; i < 3; ++i) penalties.accept(0, bytes, 1);
    penalties.apply(0.5f, 1, logits);
    CHECK_MESSAGE(logits[0] == -0.5f, bytes);
  }
  for (const char* bytes : {"  ", "21", "1 ", "\t ", "a", "1a", "\n"}) {
    PenaltyTable penalties;
    Floats logits(1);
    for (int i = 0; i < 3; ++i) penalties.accept(0, bytes, 1);
    penalties.apply(0.5f, 1, logits);
    CHECK_MESSAGE(logits[0] == -3.5f, bytes);
  }
}

TEST_CASE("sampler: accepted tokens change what is drawn until the penalties are cleared") {
  SamplerOptions options;
  options.temperature = 0;
  options.frequency_penalty = 1;
  options.penalty_decay = 1;
  Sampler sampler(options);
  const Floats logits = {2.5f, 1.2f, 0};
  Ids drawn;
  for (int i = 0; i < 6; ++i) {
    drawn.push_back(sampler.sample(logits));
    sampler.accept(drawn.back(), "word");
  }
  CHECK(drawn == Ids{0, 0, 1, 0, 1, 2});
  sampler.clear_penalties();
  CHECK(sampler.sample(logits) == 0);
}

TEST_CASE("sampler: random numbers are xoshiro256** seeded by splitmix64") {
  RandomNumbers published({1, 2, 3, 4});
  for (const uint64_t expected :
       {11520ULL, 0ULL, 1509978240ULL, 1215971899390074240ULL, 1216172134540287360ULL, 607988272756665600ULL,
        16172922978634559625ULL, 8476171486693032832ULL}) {
    CHECK(published.next() == expected);
  }
  RandomNumbers seeded(42);
  CHECK(seeded.next() == 0x15780b2e0c2ec716);
  CHECK(seeded.next() == 0x6104d9866d113a7e);
  CHECK(seeded.uniform() == static_cast<double>(0xae17533239e499a1 >> 11) / 9007199254740992.0);
}

TEST_CASE(
    "sampler: each token takes one random number and is the first whose sum of probabilities exceeds it") {
  std::mt19937 random(3);
  SamplerOptions options = open_options();
  for (const float temperature : {0.0f, 0.7f, 1.0f}) {
    options.temperature = temperature;
    options.seed = random();
    Sampler sampler(options);
    RandomNumbers numbers(options.seed);
    for (int i = 0; i < 500; ++i) {
      Floats logits(50);
      std::normal_distribution<float> normal(0, 2);
      for (float& x : logits) x = normal(random);
      const Distribution distribution = distribution_of(logits, options);
      const double u = numbers.uniform();
      double sum = distribution.probabilities[0];
      size_t choice = 0;
      while (sum <= u) sum += distribution.probabilities[++choice];
      REQUIRE(sampler.sample(logits) == distribution.ids[choice]);
    }
  }
}

TEST_CASE("sampler: a seed gives these tokens on every machine") {
  SamplerOptions options = open_options();
  options.seed = 7;
  options.temperature = 1.5f;
  Sampler sampler(options);
  Floats logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 7919 % 1000) / 100;
  Ids drawn;
  for (int i = 0; i < 8; ++i) drawn.push_back(sampler.sample(logits));
  CHECK(drawn == Ids{697, 284, 841, 977, 988, 877, 62, 104});
}

TEST_CASE("sampler: tokens are drawn as often as they are probable") {
  SamplerOptions options = open_options();
  options.top_p = 0.95f;
  Sampler sampler(options);
  const Floats logits = {0, 1, 2, 0.5f, -9};
  const std::vector<double> expected = dense(distribution_of(logits, options), logits.size());
  constexpr int draws = 100'000;
  std::vector<double> found(logits.size());
  for (int i = 0; i < draws; ++i) found[static_cast<size_t>(sampler.sample(logits))] += 1.0 / draws;
  CHECK(expected[4] == 0);
  CHECK(found[4] == 0);
  CHECK(largest_difference(found, expected) < 5 * std::sqrt(0.25 / draws));
}

TEST_CASE("sampler: a copy goes on as the original does") {
  SamplerOptions options = open_options();
  options.frequency_penalty = 0.5f;
  Sampler original(options);
  const Floats logits = {1, 2, 1.5f, 2.5f, 2};
  const auto draw = [&](Sampler& sampler) {
    Ids drawn;
    for (int i = 0; i < 40; ++i) {
      drawn.push_back(sampler.sample(logits));
      sampler.accept(drawn.back(), "word");
    }
    return drawn;
  };
  draw(original);
  Sampler copy = original;
  const Ids expected = draw(original);
  CHECK(draw(copy) == expected);
  CHECK(draw(original) != expected);
}

TEST_CASE("sampler: an option outside its range is refused by name") {
  const auto refusal = [](auto change) {
    SamplerOptions options;
    change(options);
    return error_of([&] { Sampler sampler(options); });
  };
  CHECK(refusal([](SamplerOptions&) {}).empty());
  CHECK(refusal([](SamplerOptions& o) { o.temperature = nan; }) ==
        "temperature must be a number from 0 to 100, not nan");
  CHECK(refusal([](SamplerOptions& o) { o.temperature = 100.5f; }) ==
        "temperature must be a number from 0 to 100, not 100.5");
  CHECK(refusal([](SamplerOptions& o) { o.temperature = infinity; }) ==
        "temperature must be a number from 0 to 100, not inf");
  CHECK(refusal([](SamplerOptions& o) { o.temperature = -0.5f; }) ==
        "temperature must be a number from 0 to 100, not -0.5");
  CHECK(refusal([](SamplerOptions& o) { o.top_p = 1.25f; }) ==
        "top_p must be a number from 0 to 1, not 1.25");
  CHECK(refusal([](SamplerOptions& o) { o.top_p = nan; }) == "top_p must be a number from 0 to 1, not nan");
  CHECK(refusal([](SamplerOptions& o) { o.top_k = -1; }) ==
        "top_k must be a whole number of at least 0, not -1");
  CHECK(refusal([](SamplerOptions& o) { o.presence_penalty = infinity; }) ==
        "presence_penalty must be a number from -1000 to 1000, not inf");
  CHECK(refusal([](SamplerOptions& o) { o.frequency_penalty = -1001; }) ==
        "frequency_penalty must be a number from -1000 to 1000, not -1001");
  CHECK(refusal([](SamplerOptions& o) { o.penalty_decay = 1.5f; }) ==
        "penalty_decay must be a number from 0 to 1, not 1.5");
  CHECK(refusal([](SamplerOptions& o) {
          o.banned = {3, -1};
        }) == "banned tokens are ids of at least 0, not -1");
}

}  // namespace rwkv::test

TEST_SUITE_END();
