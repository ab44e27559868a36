#include "model/text/score.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "test/ops/device_tensor.h"
#include "test/support.h"

TEST_SUITE_BEGIN("model");

namespace rwkv::test {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("score: probabilities add up to one, whatever is added to all logits") {
  Random random(1);
  for (float offset : {0.0f, 50.0f, -3000.0f}) {
    std::vector<float> logits = random.normals(100, 3);
    for (float& v : logits) v += offset;
    double sum = 0;
    for (int32_t token = 0; token < 100; token++) sum += std::exp(log_probability(logits, token));
    CHECK(std::abs(sum - 1) < 1e-12);
  }
  const std::vector<float> two = {0, std::log(3.0f), -inf};
  CHECK(log_probability(two, 0) == doctest::Approx(std::log(0.25)));
  CHECK(log_probability(two, 1) == doctest::Approx(std::log(0.75)));
  CHECK(log_probability(two, 2) == -std::numeric_limits<double>::infinity());
}

TEST_CASE("score: of equal logits the first is the likeliest") {
  CHECK(likeliest(std::vector<float>{1, 3, 2, 3}) == 1);
  CHECK(likeliest(std::vector<float>{-inf, -5}) == 1);
}

TEST_CASE("score: the divergence is that of the definition") {
  const std::vector<float> p = {0, std::log(3.0f)}, q = {std::log(2.0f), 0};
  const double expected = 0.25 * std::log(0.25 / (2.0 / 3)) + 0.75 * std::log(0.75 / (1.0 / 3));
  CHECK(divergence(p, q) == doctest::Approx(expected));
  CHECK(divergence(p, p) == 0);
  // What the reference never predicts costs nothing; what the other one never predicts costs everything.
  CHECK(divergence(std::vector<float>{0, -inf}, std::vector<float>{0, 0}) == doctest::Approx(std::log(2.0)));
  CHECK(divergence(std::vector<float>{0, 0}, std::vector<float>{0, -inf}) == inf);
}

TEST_CASE("score: what cannot be scored is refused") {
  const std::vector<float> logits = {1, 2};
  CHECK(error_of([&] { log_probability(logits, 2); }) != "");
  CHECK(error_of([&] { log_probability(logits, -1); }) != "");
  CHECK(error_of([&] { log_probability(std::vector<float>{1, nan}, 0); }) != "");
  CHECK(error_of([&] { divergence(logits, std::vector<float>{1, nan}); }) != "");
  CHECK(error_of([&] { divergence(logits, std::vector<float>{1}); }) != "");
}

TEST_CASE("score: sums over a text, with the worst token of all") {
  const std::vector<float> a = {0, 1, 2}, b = {2, 1, 0}, c = {0.5f, 1, 2};
  TextScore score;
  score.add(a, 2);
  score.add(a, 0);
  CHECK(score.tokens == 2);
  CHECK(score.correct == 1);
  CHECK(score.nats == doctest::Approx(-log_probability(a, 2) - log_probability(a, 0)));
  Divergence d;
  d.add(a, c);
  d.add(a, b);
  d.add(a, a);
  CHECK(d.tokens == 3);
  CHECK(d.flips == 1);
  CHECK(d.worst_at == 1);
  CHECK(d.worst == divergence(a, b));
  CHECK(d.sum == doctest::Approx(divergence(a, b) + divergence(a, c)));
}

}  // namespace rwkv::test

TEST_SUITE_END();
