// What every implementation of the operators must do: correct results (test/reference.h), the same bits for
// any division of the tokens into chunks (but for products of tensor cores and CPU tiles, where one token
// alone may have others) and on every device of the implementation, no write beyond the outputs. Each
// function makes assertions of doctest.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "ops/device.h"
#include "test/ops/device_tensor.h"
#include "test/reference.h"

namespace rwkv::test {

/// How the inputs and weights of products are rounded: see Ops::matmul.
enum class Rounding : uint8_t { cpu, cpu_integers, cpu_bf16, cuda };

/// Devices that must compute the same bits, such as one for each number of threads, with operators on each.
class Implementation {
 public:
  /// `layouts`: those that weights of these devices may have.
  Implementation(std::vector<std::unique_ptr<Device>> devices, std::vector<Layout> layouts,
                 Rounding rounding = Rounding::cpu);

  struct Bench {
    Device& device;
    Ops& ops;
  };
  [[nodiscard]] size_t size() const { return devices_.size(); }
  [[nodiscard]] Bench operator[](size_t i) const { return {*devices_[i], *ops_[i]}; }
  [[nodiscard]] const std::vector<Layout>& layouts() const { return layouts_; }
  [[nodiscard]] Rounding rounding() const { return rounding_; }

 private:
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<Ops>> ops_;
  std::vector<Layout> layouts_;
  Rounding rounding_;
};
using Bench = Implementation::Bench;

/// An operator as it goes from token to token, perhaps with a state.
struct Sequence {
  int64_t tokens = 0;
  std::vector<float> state;  ///< before the first token
  /// Runs some of the tokens: gives their outputs, token after token, and replaces the state.
  std::function<std::vector<float>(Bench, Range, std::vector<float>&)> run;
  /// One token's outputs and the state after it.
  std::function<Step(int64_t token, Floats state)> expected;
  /// The outputs of a token among others, where a token alone may have other bits; there is no state then.
  std::function<Estimates(int64_t token)> expected_among{};
};

/// Compares each token with the formula, then chunks of other lengths and other devices bit by bit: those of
/// one token with that token alone, and the others with all tokens in one chunk.
void check_sequence(const Implementation& implementation, const Sequence& sequence);

/// For `run`: the output's values, after a look at the memory around it and at the inputs.
std::vector<float> finish(const DeviceTensor& out, std::initializer_list<const DeviceTensor*> inputs);
/// The rows of a dense matrix that belong to some tokens.
std::vector<float> rows_of(Floats matrix, int64_t width, Range tokens);

/// Sequences with inputs, and places of them, that follow from the seed.
Sequence layer_norm_sequence(int64_t tokens, int64_t width, int64_t seed, bool in_place);
Sequence token_shift_sequence(int64_t tokens, int64_t width, int64_t mixes, int64_t seed);
struct Heads {
  int64_t heads, size, tokens;
};
Sequence wkv4_sequence(int64_t width, int64_t tokens, int64_t seed);
Sequence wkv5_sequence(Heads shape, bool decay_per_token, int64_t seed);
Sequence wkv7_sequence(Heads shape, int64_t seed);

void check_embed(const Implementation& implementation);
void check_layer_norm(const Implementation& implementation);
void check_token_shift(const Implementation& implementation);

/// Many shapes, places, chunk lengths, with an epilogue each.
void check_matmul(const Implementation& implementation, Layout layout, DType dtype);
/// All epilogues.
void check_epilogues(const Implementation& implementation, Layout layout, DType dtype);
/// Several products in one call, of different layouts, types and shapes.
void check_matmul_of_several(const Implementation& implementation);
/// Several products of one input, and of its first columns.
void check_matmul_of_shared_inputs(const Implementation& implementation);
/// bf16 weights that are exact give the bits of the same weights in fp32.
void check_exact_matmul(const Implementation& implementation);
/// Weights in cpu_coded give the bits of the same weights in cpu_blocks, exact or not.
void check_coded_matmul(const Implementation& implementation);
/// Weights in cpu_coded whose bytes are anything harm nothing but the product.
void check_damaged_coding(const Implementation& implementation);
/// Enough work that threads overlap, again and again.
void check_matmul_repeatedly(const Implementation& implementation);
/// The smallest and largest numbers of each type; infinities and NaN.
void check_matmul_extremes(const Implementation& implementation);
/// exp, tanh, sigmoid, silu over the whole range of floats.
void check_functions(const Implementation& implementation);

void check_wkv4(const Implementation& implementation);
void check_wkv5(const Implementation& implementation);
void check_wkv6(const Implementation& implementation);
void check_wkv7(const Implementation& implementation);

/// After reserve() no operator allocates memory of the host.
void check_allocations(const Implementation& implementation);

}  // namespace rwkv::test
