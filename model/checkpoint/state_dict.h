// What the pickled object of a checkpoint says: which tensors there are and where their elements lie. It
// knows the functions and types of PyTorch by name and refuses every other, without running any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "model/checkpoint/pickle.h"

namespace rwkv {

/// An element type of PyTorch. `dtype` is empty for those that are refused.
struct ElementType {
  std::string_view storage;  ///< the class of storage, such as FloatStorage
  std::string_view name;     ///< such as float32
  uint64_t size;             ///< bytes
  std::optional<DType> dtype;
};

/// A storage: elements in a record of their own, shared by the tensors that view it.
struct StorageId {
  std::string_view key;  ///< points into the pickle
  const ElementType* type = nullptr;
  uint64_t elements = 0;                       ///< of the whole storage, as the pickle states it
  uint64_t view_begin = 0, view_elements = 0;  ///< the part of it that is meant (old files; else all)
};

/// A tensor as the pickle describes it. Sizes, strides and offset are not compared with anything yet.
struct StateTensor {
  std::string name;
  StorageId storage;
  uint64_t offset = 0;  ///< of the first element in the view, in elements
  std::vector<int64_t> sizes, strides;
};

struct StateDict {
  std::vector<StateTensor> tensors;      ///< in the order of the dict, names unique; types f32, f16, bf16
  std::vector<std::string> other_names;  ///< keys whose values are no tensors
  bool is_list = false;                  ///< a list or tuple of tensors, whose names are "0", "1", ...
};

/// Takes a dict of tensors (dict, OrderedDict, defaultdict; plain tensors and Parameters) apart, or a list of
/// nothing but tensors. `path` begins the message of the Error for anything else: a tensor of another type, a
/// training checkpoint with the state dict inside, a pickled module, a global that is not known here.
StateDict read_state_dict(const Pickle& pickle, const std::string& path);

/// All storages that the pickle mentions, used by tensors or not.
std::vector<StorageId> storages_of(const Pickle& pickle, const std::string& path);

}  // namespace rwkv
