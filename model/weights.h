// What the tensors of a layer are. Each version has a struct with one named member per tensor and one
// function
//   for_each_tensor(layer, config, index, visit)
// that calls visit(TensorSpec, member) in the order in which the tensors lie in a model file. Converting,
// checking, loading, listing and streaming all go through it.
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor.h"
#include "model/config.h"
#include "model/strategy.h"
#include "ops/layout.h"
#include "ops/ops.h"

namespace rwkv {

enum class Role : uint8_t {
  vector,    ///< fp32 always
  matrix,    ///< big: int8 or int4 where the strategy says so
  rows,      ///< big, with mostly zero inputs (ffn.value): stored by rows
  low_rank,  ///< small matrix: never quantized
  table,     ///< embeddings: gathered, not multiplied
};

/// How a vector is computed from the checkpoint's, once, when it is converted.
enum class Transform : uint8_t {
  none,
  one_minus,         ///< 1 - x: versions 4 and 5 mix x * m + previous * (1 - m)
  negative_exp,      ///< -exp(x): time_decay of version 4
  exp_negative_exp,  ///< exp(-exp(x)): time_decay of version 5
  transposed_heads,  ///< [H, N, N] with the last two swapped: time_state is [head, value, key] in checkpoints
};

struct TensorSpec {
  std::string name;  ///< in the model file: the checkpoint's, without "blocks.N."
  Role role = Role::vector;
  int64_t rows = 0;         ///< vector: its length; matrix: outputs; table: entries
  int64_t cols = 1;         ///< matrix: inputs; table: width
  std::string source{};     ///< in the checkpoint, when it is another one
  bool transposed = false;  ///< the checkpoint has [inputs, outputs]
  int part = -1;            ///< >= 0: this entry of the first dimension of the checkpoint's tensor
  Transform transform = Transform::none;
};

/// Shorthands for the visitors.
inline TensorSpec vector_spec(std::string name, int64_t size, Transform transform = Transform::none) {
  TensorSpec s{.name = std::move(name), .role = Role::vector, .rows = size};
  s.transform = transform;
  return s;
}
inline TensorSpec matrix_spec(std::string name, int64_t outputs, int64_t inputs) {
  return {.name = std::move(name), .role = Role::matrix, .rows = outputs, .cols = inputs};
}
inline TensorSpec rows_spec(std::string name, int64_t outputs, int64_t inputs) {
  return {.name = std::move(name), .role = Role::rows, .rows = outputs, .cols = inputs};
}
inline TensorSpec low_rank_spec(std::string name, int64_t outputs, int64_t inputs) {
  return {
      .name = std::move(name), .role = Role::low_rank, .rows = outputs, .cols = inputs, .transposed = true};
}

/// How a tensor lies in memory: its type and layout and, for everything, its size in bytes.
struct StoredForm {
  DType dtype = DType::f32;
  Layout layout = Layout::plain;
  int64_t units = 0;       ///< rows of a table, units of a packed matrix, 1 for a vector
  int64_t unit_bytes = 0;  ///< a multiple of 64, padding included

  [[nodiscard]] int64_t bytes() const { return units * unit_bytes; }
  bool operator==(const StoredForm&) const = default;
};

/// Whether a matrix of the layer may be of any type that holds its weights exactly, since it is multiplied in
/// fp32 whatever it is: those of the CPU's layers in fp32 that are not quantized.
bool is_exact(const TensorSpec& spec, const LayerPlan& plan);
/// The form that a strategy wants for a tensor of a layer; an exact matrix has the type `weights`.
StoredForm stored_form(const TensorSpec& spec, const LayerPlan& plan, DType weights = DType::f32);
/// The layout of a stored matrix.
inline MatrixLayout matrix_layout(const TensorSpec& spec, const StoredForm& form) {
  return {form.layout, form.dtype, spec.rows, spec.cols};
}
/// The form of the same matrix in cpu_coded, which holds the same numbers in fewer bytes; otherwise, where
/// that is not for it, `form`.
StoredForm coded_form(const TensorSpec& spec, const StoredForm& form);
/// A view of a stored tensor.
Tensor stored_view(const TensorSpec& spec, const StoredForm& form, const std::byte* data);

/// ln1, ln2, ln_out: both vectors of a normalization.
template <class Norm, class Visit>
void for_each_norm(Norm& norm, const std::string& name, int64_t size, Visit& visit) {
  visit(vector_spec(name + ".weight", size), norm.weight);
  visit(vector_spec(name + ".bias", size), norm.bias);
}

/// A trained initial state that was merged into a checkpoint.
inline TensorSpec time_state_spec(const Config& c) {
  return vector_spec("att.time_state", c.n_att * c.head_size, Transform::transposed_heads);
}

/// What comes before the first layer: gathered, and already normalized by ln0.
struct Embedding {
  Tensor table;
};
template <class Visit>
void for_each_tensor(Embedding& w, const Config& c, Visit visit) {
  visit(TensorSpec{.name = "emb.weight", .role = Role::table, .rows = c.n_vocab, .cols = c.n_embd}, w.table);
}

/// The last layer.
struct Head {
  Norm ln_out;
  Tensor head;
};
template <class Visit>
void for_each_tensor(Head& w, const Config& c, Visit visit) {
  for_each_norm(w.ln_out, "ln_out", c.n_embd, visit);
  visit(matrix_spec("head.weight", c.n_vocab, c.n_embd), w.head);
}

}  // namespace rwkv
