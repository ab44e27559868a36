// From logits to the next token: bans, penalties, the cut by top_p and top_k, temperature, and the draw.
//
// The arithmetic is that of `sample_logits` and `generate` in the Python package `rwkv`, step by step:
//   1. logits of banned tokens become minus infinity;
//   2. logit -= presence_penalty + count * frequency_penalty for every token in the penalty table;
//   3. p = softmax(logits) in fp32;
//   4. the cut by top_p: the probabilities in descending order are summed in fp32; the one at which the sum
//      reaches top_p is the cutoff, and everything below it is dropped (so equals of the cutoff stay);
//   5. the cut by top_k, when 0 < top_k < vocabulary: the top_k greatest remain; among equal probabilities
//      the higher ids (the package leaves this order open);
//   6. temperature: what remains is raised to the power 1 / temperature;
//   7. what remains is divided by its sum.
// Two consequences of step 4 surprise. top_p = 0 keeps only the greatest probability and its equals. And a
// sum in fp32 may stop short of a top_p very near 1 (over a large vocabulary it loses the tail, whose terms
// are less than half a unit in its last place): then, as in the package, only the greatest probability and
// its equals remain. So top_p = 1 is no way to switch the cut off; 0.99 keeps nearly all. temperature = 0
// means greedy: the first maximum after steps 1 and 2.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace rwkv {

/// Beyond this every token is about as likely as any other.
constexpr float max_temperature = 100;

struct SamplerOptions {
  float temperature = 1.0f;          ///< 0 to max_temperature; 0 is greedy
  float top_p = 0.85f;               ///< 0 to 1
  int top_k = 0;                     ///< 0: no cut by rank
  float presence_penalty = 0;        ///< for every token in the table; -1000 to 1000
  float frequency_penalty = 0;       ///< times its count; -1000 to 1000
  float penalty_decay = 0.996f;      ///< counts are multiplied by it at each token; 0 to 1
  std::vector<int32_t> banned = {};  ///< ids that are never drawn, in any order; thousands cost nothing
  uint64_t seed = 0;
};

/// Throws Error, naming the option, for a value outside its range.
void check_options(const SamplerOptions& options);

/// xoshiro256** (Blackman and Vigna, prng.di.unimi.it), its state filled with four numbers of splitmix64
/// started at the seed. The same sequence on every machine.
class RandomNumbers {
 public:
  explicit RandomNumbers(uint64_t seed);
  explicit RandomNumbers(const std::array<uint64_t, 4>& state) : state_(state) {}

  uint64_t next();
  /// The upper 53 bits of one number, as a multiple of 2^-53 in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::array<uint64_t, 4> state_;
};

/// How often each token was seen, decaying.
class PenaltyTable {
 public:
  /// All counts are multiplied by `decay`, then this token's grows by 1, or by 0 when its bytes are a piece
  /// of " \t0123456789" (space, tab, digit, "12", nothing): such a token costs the presence penalty only.
  void accept(int32_t token, std::string_view token_bytes, float decay);
  /// Step 2 above. Throws Error for a token beyond the logits.
  void apply(float presence, float frequency, std::span<float> logits) const;
  void clear() { seen_.clear(); }

 private:
  struct Seen {
    int32_t token;
    double count;
  };
  std::vector<Seen> seen_;
};

/// What may be drawn, and the scratch memory to find it, which grows to the vocabulary's size once: after
/// that a draw allocates nothing.
struct Distribution {
  std::vector<int32_t> ids;           ///< ascending
  std::vector<double> probabilities;  ///< of each of `ids`; they add up to 1

  std::vector<float> logits;    ///< scratch: after bans and penalties
  std::vector<float> softmax;   ///< scratch: step 3
  std::vector<float> level;     ///< scratch: some of the probabilities, in descending order
  std::vector<float> sorted;    ///< scratch: for sorting them
  std::vector<int32_t> ranked;  ///< scratch: ids, partly ordered by probability
};

/// Steps 1 to 7: depends on its arguments alone. Expects options that check_options accepts. Throws Error
/// when a logit is NaN or plus infinity (minus infinity is a ban), when a banned id is not in the vocabulary,
/// and when every token is banned.
void compute_distribution(std::span<const float> logits, const SamplerOptions& options,
                          const PenaltyTable& penalties, Distribution& result);

/// A sampler is copyable: a copy continues exactly as the original would have.
class Sampler {
 public:
  explicit Sampler(SamplerOptions options);

  /// Draws a token. Takes exactly one random number u, greedy or not: the token is the first, by ascending
  /// id, at which the sum of probabilities (in double precision) exceeds u. Errors: see compute_distribution.
  int32_t sample(std::span<const float> logits);
  /// Enters a token into the penalty table: call it for every token of the reply that goes on.
  void accept(int32_t token, std::string_view token_bytes);
  /// Forgets all penalties, as at the beginning of a reply; the random numbers go on.
  void clear_penalties() { penalties_.clear(); }

  /// Other options from now on; the random numbers go on unless the seed is another. Throws Error as the
  /// constructor does, and then changes nothing.
  void set(SamplerOptions options);

  [[nodiscard]] const SamplerOptions& options() const { return options_; }

 private:
  SamplerOptions options_;
  PenaltyTable penalties_;
  RandomNumbers random_;
  Distribution distribution_;
};

}  // namespace rwkv
