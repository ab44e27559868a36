#include "model/checkpoint/torch_names.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace rwkv {
namespace {

struct GlobalName {
  std::string_view module, name;
};

template <size_t n>
bool contains(const std::array<GlobalName, n>& names, const PickleNode& global) {
  return std::any_of(names.begin(), names.end(),
                     [&](const GlobalName& g) { return global.is_global(g.module, g.name); });
}

constexpr ElementType element_types[] = {
    {"FloatStorage", "float32", 4, DType::f32},
    {"HalfStorage", "float16", 2, DType::f16},
    {"BFloat16Storage", "bfloat16", 2, DType::bf16},
    {"DoubleStorage", "float64", 8, {}},
    {"LongStorage", "int64", 8, {}},
    {"IntStorage", "int32", 4, {}},
    {"ShortStorage", "int16", 2, {}},
    {"CharStorage", "int8", 1, {}},
    {"ByteStorage", "uint8", 1, {}},
    {"BoolStorage", "bool", 1, {}},
    {"ComplexFloatStorage", "complex64", 8, {}},
    {"ComplexDoubleStorage", "complex128", 16, {}},
    {"QInt8Storage", "qint8", 1, {}},
    {"QUInt8Storage", "quint8", 1, {}},
    {"QInt32Storage", "qint32", 4, {}},
    {"QUInt4x2Storage", "quint4x2", 1, {}},
    {"QUInt2x4Storage", "quint2x4", 1, {}},
    {"UntypedStorage", "bytes", 1, {}},
};

struct BuilderName {
  GlobalName global;
  TensorBuilder builder;
};

constexpr BuilderName builders[] = {
    {{"torch._utils", "_rebuild_tensor"}, TensorBuilder::tensor},
    {{"torch._utils", "_rebuild_tensor_v2"}, TensorBuilder::tensor_v2},
    {{"torch._utils", "_rebuild_tensor_v3"}, TensorBuilder::tensor_v3},
    {{"torch._utils", "_rebuild_parameter"}, TensorBuilder::parameter},
    {{"torch._utils", "_rebuild_parameter_with_state"}, TensorBuilder::parameter_with_state},
    {{"torch._tensor", "_rebuild_from_type_v2"}, TensorBuilder::from_type},
};

constexpr std::array<GlobalName, 3> dict_classes = {{
    {"collections", "OrderedDict"},
    {"collections", "defaultdict"},
    {"collections", "Counter"},
}};

constexpr std::array<GlobalName, 2> tensor_classes = {{
    {"torch", "Tensor"},
    {"torch.nn.parameter", "Parameter"},
}};

// Of values beside the tensors; they are listed, never made.
constexpr std::array<GlobalName, 6> value_names = {{
    {"torch", "Size"},
    {"torch", "device"},
    {"_codecs", "encode"},
    {"numpy", "dtype"},
    {"numpy.core.multiarray", "scalar"},
    {"numpy._core.multiarray", "scalar"},
}};

constexpr std::string_view builtin_types[] = {"set",     "frozenset", "list", "dict", "tuple",
                                              "int",     "float",     "bool", "str",  "long",
                                              "complex", "bytearray", "slice"};

bool is_builtin_type(const PickleNode& global) {
  std::string_view module = *global.items[0].string(), name = *global.items[1].string();
  if (module != "builtins" && module != "__builtin__") return false;
  return std::find(std::begin(builtin_types), std::end(builtin_types), name) != std::end(builtin_types);
}

}  // namespace

std::optional<TensorBuilder> tensor_builder(const PickleNode& global) {
  for (const BuilderName& b : builders) {
    if (global.is_global(b.global.module, b.global.name)) return b.builder;
  }
  return std::nullopt;
}

const ElementType* element_type_of_storage(const PickleNode& global) {
  for (const ElementType& type : element_types) {
    if (global.is_global("torch", type.storage) || global.is_global("torch.cuda", type.storage) ||
        global.is_global("torch.storage", type.storage)) {
      return &type;
    }
  }
  return nullptr;
}

const ElementType* element_type_named(std::string_view name) {
  for (const ElementType& type : element_types) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

bool is_dict_class(const PickleNode& global) { return contains(dict_classes, global); }
bool is_tensor_class(const PickleNode& global) { return contains(tensor_classes, global); }

bool is_dtype(const PickleNode& global) {
  if (global.kind != PickleNode::Kind::global || *global.items[0].string() != "torch") return false;
  std::string_view name = *global.items[1].string();
  for (std::string_view family : {"float", "bfloat", "int", "uint", "qint", "quint", "complex", "bits"}) {
    if (name.size() > family.size() && name.starts_with(family) &&
        std::isdigit(static_cast<unsigned char>(name[family.size()])) != 0) {
      return true;
    }
  }
  return name == "bool";
}

bool is_known_global(const PickleNode& global) {
  return tensor_builder(global) || element_type_of_storage(global) != nullptr || is_dict_class(global) ||
         is_tensor_class(global) || is_dtype(global) || contains(value_names, global) ||
         is_builtin_type(global);
}

}  // namespace rwkv
