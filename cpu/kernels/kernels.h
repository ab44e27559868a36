// The functions that exist once per instruction set, and their arguments. No argument is checked here:
// ops/ops.h has the formulas and its implementation the checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/thread_pool.h"
#include "ops/ops.h"

namespace rwkv::cpu {

/// How a product wants its inputs, which are padded with zeros to a multiple of 64. One token's follow each
/// other. Several tokens come in groups, of a size that the kernels choose: an input (bf16: a pair) of each
/// token of the group, then the next.
enum class Operand : uint8_t {
  f32,               ///< fp32
  rounded_f32,       ///< fp32 values rounded to bf16
  bf16,              ///< bf16
  integers,          ///< of one token, finite ones: 16-bit integers with a scale for 32 of them
  several_integers,  ///< of several tokens: 14-bit integers with a scale for 64 (kernels/integers.h)
  /// bf16 in groups of 16 tokens, for 32 inputs after the other [16][32]; the last group is whole too,
  /// whatever is in it.
  bf16_tiles,
  /// input_rows: of each token the inputs that are not zero (kernels/nonzero.h).
  nonzero_f32,
  nonzero_rounded_f32,
  nonzero_bf16,
  nonzero_integers,
};
constexpr int64_t operand_tile_tokens = 16;
/// Bytes of an input of a token, of any Operand but bf16_tiles, at most.
constexpr int64_t operand_bytes = 7;

/// Blocks of 16 outputs that several tokens multiply with at once, if there are so many. Four blocks of
/// weights are most of the first-level cache; tiles take theirs from the second-level one, and sixteen let
/// the inputs of all tokens, which do not fit there, pass a quarter as often. Rows have a panel of 128
/// outputs.
constexpr int64_t blocks_at_once(Operand operand) {
  if (operand == Operand::bf16_tiles) return 16;
  return operand >= Operand::nonzero_f32 ? 8 : 4;
}

/// A product whose input has been prepared.
struct PreparedProduct {
  const Product* product = nullptr;
  Operand operand = Operand::f32;
  const std::byte* x = nullptr;
};

/// Outputs that matvec_rows() adds up at once, in one pass over the rows: their sums take 4 KiB.
constexpr int64_t rows_outputs = 1024;

struct Kernels {
  const char* name;

  /// The operand that a weight multiplies with.
  Operand (*operand_of)(const Tensor& weight, int64_t tokens);
  /// Tokens whose inputs lie together; the last group has the rest.
  int64_t (*operand_group)(Operand operand);
  /// Inputs of some of the tokens, cut at groups. False when this operand cannot have their values; f32 can.
  bool (*prepare)(const Tensor& x, Operand operand, Range tokens, std::byte* out);

  /// Bytes of scratch memory that a thread needs for products of so many tokens.
  int64_t (*scratch_bytes)(int64_t tokens);
  /// One token: blocks [begin, end) of 16 outputs of a cpu_blocks or cpu_coded product.
  void (*matvec_blocks)(const PreparedProduct& p, Range blocks);
  /// One token: outputs [begin, end), cut at multiples of 64, of an input_rows product.
  void (*matvec_rows)(const PreparedProduct& p, Range outputs);
  /// Several tokens: blocks [begin, end) of 16 outputs of a product of any layout; of input_rows cut at
  /// multiples of 4 blocks.
  void (*matmul)(const PreparedProduct& p, Range blocks, std::byte* scratch);

  void (*embed)(float* out, const std::byte* row, DType dtype, int64_t width);
  void (*normalize)(float* out, const float* x, const Norm& norm, int64_t width);
  /// Row t of every mix of a TokenShift whose `normalized` is complete.
  void (*mix)(const TokenShift& shift, int64_t t);

  void (*wkv4)(const Wkv4& wkv, Range channels);
  void (*wkv5)(const Wkv5& wkv, Range heads);
  void (*wkv7)(const Wkv7& wkv, Range heads);

  // For the sampler. Spans are multiples of 16 long. These give the same bits in every set.
  /// Whether every value is in [lower, upper); NaN is not.
  bool (*all_in_range)(std::span<const float> values, float lower, float upper);
  float (*maximum)(std::span<const float> values);  ///< of values without NaN
  /// result[i] = e^(logits[i] - max) / their sum, for a finite max, which no logit exceeds; logits may be
  /// minus infinity. One vector of 16 sums in fp32, added by halves.
  void (*softmax)(std::span<const float> logits, float max, float* result);
  /// Writes the indices of the values in [lower, upper), ascending, and returns how many there are.
  int64_t (*find_in_range)(std::span<const float> values, float lower, float upper, int32_t* indices);
};

namespace scalar {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avxvnni {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512vnni {
extern const Kernels kernels;
}
namespace avx512bf16 {
extern const Kernels kernels;
}
namespace amx {
extern const Kernels kernels;
}

}  // namespace rwkv::cpu
