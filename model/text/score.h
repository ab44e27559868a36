// How well logits predict a text, and how far the predictions of two models are apart.
#pragma once

#include <cstdint>
#include <span>

namespace rwkv {

/// The natural logarithm of the probability that softmax(logits) gives a token. Throws Error for a token
/// without a logit, and when a logit is NaN.
double log_probability(std::span<const float> logits, int32_t token);

/// The id of the greatest logit; of several the first.
int32_t likeliest(std::span<const float> logits);

/// The Kullback-Leibler divergence in nats, sum p (ln p - ln q) with p = softmax(reference) and
/// q = softmax(logits): what predicting with q costs where p is right. Throws Error when the sizes differ or
/// a logit is NaN.
double divergence(std::span<const float> reference, std::span<const float> logits);

/// Sums over the tokens of a text.
struct TextScore {
  int64_t tokens = 0;
  double nats = 0;      ///< -ln of the text's probability
  int64_t correct = 0;  ///< tokens that were the likeliest ones

  void add(std::span<const float> logits, int32_t token);
};

/// Sums over the tokens of a text that two models predict.
struct Divergence {
  int64_t tokens = 0;
  double sum = 0;        ///< of divergence()
  int64_t flips = 0;     ///< tokens for which another one is the likeliest
  double worst = -1;     ///< the largest divergence,
  int64_t worst_at = 0;  ///< and how many tokens came before it

  void add(std::span<const float> reference, std::span<const float> logits);
};

}  // namespace rwkv
