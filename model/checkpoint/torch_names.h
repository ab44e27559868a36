// The names that the pickle of a plain state dict may mention, and the element types of PyTorch.
#pragma once

#include <string_view>

#include "model/checkpoint/pickle.h"
#include "model/checkpoint/state_dict.h"

namespace rwkv {

/// The functions that make a tensor out of a storage or out of another tensor.
enum class TensorBuilder {
  tensor,                ///< _rebuild_tensor(storage, offset, sizes, strides)
  tensor_v2,             ///< ... , requires_grad, hooks[, metadata])
  tensor_v3,             ///< ... , requires_grad, hooks, dtype[, metadata]); the storage is untyped
  parameter,             ///< _rebuild_parameter(tensor, requires_grad, hooks)
  parameter_with_state,  ///< ... , state)
  from_type,             ///< _rebuild_from_type_v2(function, type, arguments, state)
};

/// Nothing for any other node.
std::optional<TensorBuilder> tensor_builder(const PickleNode& global);

/// nullptr for a name that is not known.
const ElementType* element_type_of_storage(const PickleNode& global);
const ElementType* element_type_named(std::string_view name);

/// dict-like classes: OrderedDict, defaultdict, Counter.
bool is_dict_class(const PickleNode& global);
bool is_tensor_class(const PickleNode& global);
/// torch.float32 and the like, also those without an ElementType.
bool is_dtype(const PickleNode& global);

/// True for all of the above and for what plain values (sets, sizes, devices, numpy scalars) mention.
bool is_known_global(const PickleNode& global);

}  // namespace rwkv
