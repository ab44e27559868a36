#include "model/text/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace rwkv {
namespace {

// ln sum exp(logits).
double log_sum(std::span<const float> logits) {
  const double largest =
      logits.empty() ? 0 : static_cast<double>(logits[static_cast<size_t>(likeliest(logits))]);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  if (std::isnan(sum)) throw Error("score: the model's logits are not numbers; its weights may be damaged");
  return largest + std::log(sum);
}

}  // namespace

double log_probability(std::span<const float> logits, int32_t token) {
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
    throw Error(fmt::format("score: token {} has no logit (there are {})", token, logits.size()));
  }
  return static_cast<double>(logits[static_cast<size_t>(token)]) - log_sum(logits);
}

int32_t likeliest(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double divergence(std::span<const float> reference, std::span<const float> logits) {
  if (reference.size() != logits.size()) throw Error("score: models of different vocabularies");
  const double all = log_sum(reference), others = log_sum(logits);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); i++) {
    const double log_p = static_cast<double>(reference[i]) - all, p = std::exp(log_p);
    if (p > 0) sum += p * (log_p - (static_cast<double>(logits[i]) - others));
  }
  return std::max(sum, 0.0);  // below zero by rounding alone
}

void TextScore::add(std::span<const float> logits, int32_t token) {
  tokens++;
  nats -= log_probability(logits, token);
  correct += likeliest(logits) == token ? 1 : 0;
}

void Divergence::add(std::span<const float> reference, std::span<const float> logits) {
  const double here = divergence(reference, logits);
  if (here > worst) {
    worst = here;
    worst_at = tokens;
  }
  tokens++;
  sum += here;
  flips += likeliest(reference) == likeliest(logits) ? 0 : 1;
}

}  // namespace rwkv
