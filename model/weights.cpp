#include "model/weights.h"

#include "core/checked.h"
#include "ops/coding.h"

namespace rwkv {

namespace {

bool is_quantized(const TensorSpec& spec, const LayerPlan& plan) {
  return plan.quantization != Quantization::none && spec.role != Role::low_rank;
}

}  // namespace

bool is_exact(const TensorSpec& spec, const LayerPlan& plan) {
  return spec.role != Role::vector && spec.role != Role::table && plan.device == DeviceKind::cpu &&
         plan.type == DType::f32 && !is_quantized(spec, plan);
}

StoredForm stored_form(const TensorSpec& spec, const LayerPlan& plan, DType weights) {
  if (spec.role == Role::vector) return {DType::f32, Layout::plain, 1, round_up(spec.rows * 4, 64)};
  if (spec.role == Role::table) {
    auto element = static_cast<int64_t>(size_of(plan.type));
    return {plan.type, Layout::plain, spec.rows, round_up(spec.cols * element, 64)};
  }
  constexpr DType integers[] = {DType::f32, DType::i8, DType::i4};
  const DType type = is_quantized(spec, plan) ? integers[static_cast<size_t>(plan.quantization)]
                     : is_exact(spec, plan)   ? weights
                                              : plan.type;
  Layout blocks = plan.device == DeviceKind::cpu ? Layout::cpu_blocks : Layout::cuda_blocks;
  MatrixLayout m{spec.role == Role::rows ? Layout::input_rows : blocks, type, spec.rows, spec.cols};
  check_layout(m, spec.name.c_str());
  return {m.dtype, m.layout, m.units(), m.unit_bytes()};
}

StoredForm coded_form(const TensorSpec& spec, const StoredForm& form) {
  const MatrixLayout m = matrix_layout(spec, form);
  if (!is_worth_coding(m)) return form;
  const MatrixLayout smaller = coded(m);
  return {smaller.dtype, smaller.layout, smaller.units(), smaller.unit_bytes()};
}

Tensor stored_view(const TensorSpec& spec, const StoredForm& form, const std::byte* data) {
  if (spec.role == Role::vector) return vector_view(data, form.dtype, spec.rows);
  if (spec.role == Role::table) {
    Tensor t = matrix_view(data, form.dtype, spec.rows, spec.cols);
    t.stride = form.unit_bytes / static_cast<int64_t>(size_of(form.dtype));
    return t;
  }
  return packed_view(matrix_layout(spec, form), data);
}

}  // namespace rwkv
