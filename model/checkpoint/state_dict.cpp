#include "model/checkpoint/state_dict.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "core/error.h"
#include "model/checkpoint/torch_names.h"

namespace rwkv {
namespace {

using Kind = PickleNode::Kind;
using Entry = std::pair<PickleValue, PickleValue>;

constexpr size_t max_wrappers = 8;     // Parameter of a tensor with attributes of ...
constexpr size_t max_rank = 64;        // as in PyTorch
constexpr size_t max_listed_keys = 8;  // in a message

const char* kind_of(const PickleValue& value) {
  if (value.is_none()) return "None";
  if (value.boolean() != nullptr) return "a bool";
  if (value.integer() != nullptr || value.long_integer() != nullptr) return "an int";
  if (value.string() != nullptr) return "a string";
  const PickleNode* node = value.node();
  if (node == nullptr) return "a number or bytes";
  switch (node->kind) {
    case Kind::tuple:
      return "a tuple";
    case Kind::list:
      return "a list";
    case Kind::set:
      return "a set";
    case Kind::dict:
      return "a dict";
    case Kind::global:
      return "a class or function";
    case Kind::persistent:
      return "a storage";
    case Kind::call:
      return tensor_builder(*node->items[0].node()) ? "a tensor" : "an object";
  }
  return "?";
}

bool is_tensor(const PickleValue& value) {
  const PickleNode* node = value.node();
  return node != nullptr && node->kind == Kind::call && tensor_builder(*node->items[0].node()).has_value();
}

/// Python 2 gives the items of an OrderedDict as its argument: a list of [key, value] lists.
std::vector<Entry> python2_entries(const PickleNode& arguments) {
  std::vector<Entry> entries;
  const PickleNode* list = arguments.items.size() == 1 ? arguments.items[0].node() : nullptr;
  if (list == nullptr || list->kind != Kind::list) return entries;
  for (const PickleValue& item : list->items) {
    const PickleNode* pair = item.node();
    if (pair == nullptr || (pair->kind != Kind::list && pair->kind != Kind::tuple) ||
        pair->items.size() != 2) {
      return {};
    }
    entries.emplace_back(pair->items[0], pair->items[1]);
  }
  return entries;
}

/// The entries of a dict, an OrderedDict and the like; nothing for any other value.
std::optional<std::vector<Entry>> entries_of(const PickleValue& value) {
  const PickleNode* node = value.node();
  size_t begin = 0;
  std::vector<Entry> entries;
  if (node != nullptr && node->kind == Kind::call && is_dict_class(*node->items[0].node())) {
    entries = python2_entries(*node->items[1].node());
    begin = 2;
  } else if (node == nullptr || node->kind != Kind::dict) {
    return std::nullopt;
  }
  for (size_t i = begin; i + 1 < node->items.size(); i += 2) {
    entries.emplace_back(node->items[i], node->items[i + 1]);
  }
  return entries;
}

std::string list_keys(const std::vector<Entry>& entries) {
  std::string text;
  for (size_t i = 0; i < entries.size() && i < max_listed_keys; i++) {
    const std::string_view* key = entries[i].first.string();
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", key == nullptr ? "?" : printable(*key, 40),
                        kind_of(entries[i].second));
  }
  if (entries.size() > max_listed_keys) text += fmt::format(" and {} more", entries.size() - max_listed_keys);
  return text;
}

std::string global_name(const PickleNode& global) {
  return fmt::format("{}.{}", printable(*global.items[0].string()), printable(*global.items[1].string()));
}

/// Whom a message speaks of, "FILE: " or "FILE: tensor 'NAME' ". What is wrong follows as a verb.
class Place {
 public:
  explicit Place(std::string text) : text_(std::move(text)) {}
  [[noreturn]] void fail(std::string_view what) const { throw Error(text_ + std::string(what)); }

  [[nodiscard]] uint64_t unsigned_integer(const PickleValue& value, const char* what) const {
    if (value.integer() == nullptr || *value.integer() < 0) {
      fail(fmt::format("has {} as its {}", kind_of(value), what));
    }
    return static_cast<uint64_t>(*value.integer());
  }
  [[nodiscard]] std::vector<int64_t> integers(const PickleValue& value, const char* what) const {
    const PickleNode* tuple = value.node();
    if (tuple == nullptr || tuple->kind != Kind::tuple || tuple->items.size() > max_rank) {
      fail(fmt::format("has no tuple of at most {} numbers as its {}", max_rank, what));
    }
    std::vector<int64_t> numbers;
    for (const PickleValue& item : tuple->items) {
      if (item.integer() == nullptr) fail(fmt::format("has {} among its {}", kind_of(item), what));
      numbers.push_back(*item.integer());
    }
    return numbers;
  }

 private:
  std::string text_;
};

/// ('storage', class, key, device, elements[, None or (view's key, begin, elements)])
StorageId parse_storage(const PickleNode& persistent, const Place& place) {
  const PickleNode* id = persistent.items[0].node();
  if (id == nullptr || id->kind != Kind::tuple || id->items.empty() || id->items[0].string() == nullptr) {
    place.fail("has a persistent id that does not say of what");
  }
  if (*id->items[0].string() == "module") {
    place.fail(
        "holds a pickled module with its code: save the tensors alone, torch.save(model.state_dict(), FILE)");
  }
  size_t count = id->items.size();
  if (*id->items[0].string() != "storage" || (count != 5 && count != 6)) {
    place.fail("has a persistent id that does not describe a storage");
  }
  const PickleNode* storage_class = id->items[1].node();
  const std::string_view* key = id->items[2].string();
  StorageId storage;
  storage.type = storage_class == nullptr ? nullptr : element_type_of_storage(*storage_class);
  if (storage.type == nullptr || key == nullptr) {
    place.fail("has a storage without a known class or without a key");
  }
  storage.key = *key;
  storage.elements = place.unsigned_integer(id->items[4], "storage's size");
  storage.view_elements = storage.elements;
  if (count == 6 && !id->items[5].is_none()) {
    const PickleNode* view = id->items[5].node();
    if (view == nullptr || view->kind != Kind::tuple || view->items.size() != 3) {
      place.fail("has a view of a storage that is no tuple");
    }
    storage.view_begin = place.unsigned_integer(view->items[1], "view's begin");
    storage.view_elements = place.unsigned_integer(view->items[2], "view's size");
  }
  return storage;
}

/// A call of a TensorBuilder that takes a storage.
struct TensorCall {
  TensorBuilder builder;
  const std::vector<PickleValue>* arguments;
};

/// Follows Parameters and tensors with attributes down to the tensor inside.
TensorCall unwrap(const PickleValue& value, const Place& place) {
  const PickleNode* call = value.node();
  const PickleNode* function = call->items[0].node();
  const PickleNode* arguments = call->items[1].node();
  for (size_t depth = 0; depth < max_wrappers; depth++) {
    auto builder = tensor_builder(*function);
    if (!builder) place.fail("is not made by a function for tensors");
    size_t count = arguments->items.size();
    auto need = [&](size_t least, size_t most) {
      if (count < least || count > most) {
        place.fail(fmt::format("is made by {} with {} arguments", global_name(*function), count));
      }
    };
    if (*builder == TensorBuilder::from_type) {
      need(4, 4);
      const PickleNode* type = arguments->items[1].node();
      if (type == nullptr || !is_tensor_class(*type)) place.fail("is of a class derived from torch.Tensor");
      function = arguments->items[0].node();
      arguments = arguments->items[2].node();
    } else if (*builder == TensorBuilder::parameter || *builder == TensorBuilder::parameter_with_state) {
      need(3, *builder == TensorBuilder::parameter ? 3 : 4);
      if (!is_tensor(arguments->items[0])) place.fail("is a Parameter of what is no tensor");
      call = arguments->items[0].node();
      function = call->items[0].node();
      arguments = call->items[1].node();
    } else {
      if (*builder == TensorBuilder::tensor) need(4, 4);
      if (*builder == TensorBuilder::tensor_v2) need(6, 7);
      if (*builder == TensorBuilder::tensor_v3) need(7, 8);
      return {*builder, &arguments->items};
    }
    if (function == nullptr || arguments == nullptr || arguments->kind != Kind::tuple) {
      place.fail("is made by a call without function or arguments");
    }
  }
  place.fail("is wrapped too often");
}

/// Flags such as `neg`: the values are to be negated when read, which nothing but PyTorch should do.
void check_metadata(const PickleValue& value, const Place& place) {
  auto entries = entries_of(value);
  if (!entries || entries->size() > 8) place.fail(fmt::format("has {} as its metadata", kind_of(value)));
  for (const Entry& entry : *entries) {
    if (entry.second.boolean() == nullptr || *entry.second.boolean()) {
      place.fail("is a view with pending operations: save tensor.resolve_neg().resolve_conj() instead");
    }
  }
}

void resolve_type(StorageId& storage, const std::vector<PickleValue>& arguments, TensorBuilder builder,
                  const Place& place) {
  std::string name(storage.type->name);
  std::string source = fmt::format("torch.{}", storage.type->storage);
  if (builder == TensorBuilder::tensor_v3) {
    const PickleNode* dtype = arguments[6].node();
    if (dtype == nullptr || !is_dtype(*dtype)) place.fail("has a type that is none of PyTorch's");
    name = printable(*dtype->items[1].string());
    const ElementType* type = element_type_named(name);
    bool readable =
        type != nullptr && type->dtype && storage.type->size == 1 && storage.elements % type->size == 0;
    if (readable) {
      storage.elements /= type->size;
      storage.view_elements = storage.elements;
      storage.type = type;
    }
  }
  if (!storage.type->dtype) {
    place.fail(fmt::format(
        "is {} ({}): only float32, float16 and bfloat16 are read, so convert it to one of them or "
        "remove it first",
        name, source));
  }
}

StateTensor parse_tensor(std::string_view name, const PickleValue& value, const std::string& path) {
  Place place(fmt::format("{}: tensor '{}' ", path, printable(name)));
  TensorCall call = unwrap(value, place);
  const auto& arguments = *call.arguments;
  const PickleNode* persistent = arguments[0].node();
  if (persistent == nullptr || persistent->kind != Kind::persistent) place.fail("has no storage");
  StateTensor tensor;
  tensor.name = name;
  tensor.storage = parse_storage(*persistent, place);
  resolve_type(tensor.storage, arguments, call.builder, place);
  tensor.offset = place.unsigned_integer(arguments[1], "offset");
  tensor.sizes = place.integers(arguments[2], "sizes");
  tensor.strides = place.integers(arguments[3], "strides");
  if (call.builder == TensorBuilder::tensor_v2 && arguments.size() == 7) check_metadata(arguments[6], place);
  if (call.builder == TensorBuilder::tensor_v3 && arguments.size() == 8) check_metadata(arguments[7], place);
  return tensor;
}

/// The key of a dict with tensors inside the dict: the file is a training checkpoint.
std::optional<std::string> nested_key(const std::vector<Entry>& root) {
  std::unordered_set<const PickleNode*> seen;
  for (const Entry& entry : root) {
    if (entry.first.string() == nullptr || !seen.insert(entry.second.node()).second) continue;
    auto inner = entries_of(entry.second);
    if (!inner) continue;
    for (const Entry& value : *inner) {
      if (is_tensor(value.second)) return printable(*entry.first.string());
    }
  }
  return std::nullopt;
}

/// How to get a plain state dict out of the file.
std::string advice(const std::optional<std::string>& nested) {
  if (!nested) return "save the dense tensors alone: torch.save(model.state_dict(), FILE)";
  return fmt::format("save the model's part alone: torch.save(torch.load(FILE)['{}'], NEW_FILE)", *nested);
}

bool is_call_of(const PickleValue& value, const PickleNode& global) {
  const PickleNode* call = value.node();
  if (call == nullptr || call->kind != Kind::call) return false;
  return call->items[0].node()->is_global(*global.items[0].string(), *global.items[1].string());
}

/// The first global that is not known is an Error. It helps to know which value asks for it.
void check_globals(const Pickle& pickle, const std::vector<Entry>& root, const std::string& path) {
  for (const PickleNode* global : pickle.globals) {
    if (is_known_global(*global)) continue;
    std::string user = "its pickle";
    for (const Entry& entry : root) {
      if (entry.first.string() != nullptr && is_call_of(entry.second, *global)) {
        user = fmt::format("the value '{}'", printable(*entry.first.string()));
        break;
      }
    }
    std::string keys = root.empty() ? "" : fmt::format("; it holds {}", list_keys(root));
    throw Error(
        fmt::format("{}: {} asks for '{}', which is refused: nothing but a plain state dict is read{}; {}",
                    path, user, global_name(*global), keys, advice(nested_key(root))));
  }
}

void check_not_converted(const std::vector<Entry>& root, const std::string& path) {
  for (const Entry& entry : root) {
    const std::string_view* key = entry.first.string();
    if (key == nullptr || (*key != "_strategy" && *key != "_rescale_layer")) continue;
    const std::string_view* strategy = entry.second.string();
    throw Error(
        fmt::format("{}: was converted by the Python package rwkv{}: use the original checkpoint", path,
                    strategy == nullptr ? "" : fmt::format(" for the strategy '{}'", printable(*strategy))));
  }
}

/// The root when it is a list or tuple of nothing but tensors, else nullptr.
const PickleNode* tensor_list(const PickleValue& root) {
  const PickleNode* node = root.node();
  bool list = node != nullptr && (node->kind == Kind::list || node->kind == Kind::tuple) &&
              !node->items.empty() && std::all_of(node->items.begin(), node->items.end(), is_tensor);
  return list ? node : nullptr;
}

StateDict parse_list(const PickleNode& list, const std::string& path) {
  StateDict dict;
  dict.is_list = true;
  for (const PickleValue& item : list.items) {
    dict.tensors.push_back(parse_tensor(std::to_string(dict.tensors.size()), item, path));
  }
  return dict;
}

}  // namespace

StateDict read_state_dict(const Pickle& pickle, const std::string& path) {
  auto root = entries_of(pickle.root);
  check_globals(pickle, root ? *root : std::vector<Entry>(), path);
  if (const PickleNode* list = tensor_list(pickle.root)) return parse_list(*list, path);
  Place place(path + ": ");
  if (!root) place.fail(fmt::format("holds {}, not a dict of tensors", kind_of(pickle.root)));
  check_not_converted(*root, path);
  if (auto nested = nested_key(*root)) {
    place.fail(fmt::format("a training checkpoint that holds {}; {}", list_keys(*root), advice(nested)));
  }
  StateDict dict;
  std::unordered_set<std::string_view> names;
  for (const auto& [key, value] : *root) {
    const std::string_view* name = key.string();
    if (name == nullptr) {
      place.fail(fmt::format("has {} as a key of its dict: a tensor's name is a string", kind_of(key)));
    }
    if (!names.insert(*name).second) place.fail(fmt::format("has '{}' twice in its dict", printable(*name)));
    if (is_tensor(value)) {
      dict.tensors.push_back(parse_tensor(*name, value, path));
    } else {
      dict.other_names.emplace_back(*name);
    }
  }
  if (dict.tensors.empty()) {
    place.fail(root->empty() ? "holds no tensors: its dict is empty"
                             : fmt::format("holds no tensors, but {}", list_keys(*root)));
  }
  return dict;
}

std::vector<StorageId> storages_of(const Pickle& pickle, const std::string& path) {
  std::vector<StorageId> storages;
  Place place(path + ": ");
  for (const PickleNode& node : pickle.nodes) {
    if (node.kind == Kind::persistent) storages.push_back(parse_storage(node, place));
  }
  return storages;
}

}  // namespace rwkv
