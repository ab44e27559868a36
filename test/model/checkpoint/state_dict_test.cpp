// What the pickled object says: plain tensors are understood, everything else is refused by name.
#include "model/checkpoint/state_dict.h"

#include <doctest/doctest.h>

#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

using namespace std::string_literals;

const std::string ordered_dict = pickled_global("collections", "OrderedDict");

std::string utils(const std::string& name) { return pickled_global("torch._utils", name); }

/// The message for {"x": value} in an archive with 6 floats.
std::string error_of_value(const std::string& value) { return error_of_bytes(checkpoint_with(value)); }

/// The message when the whole pickle is this value.
std::string error_of_root(const std::string& value) {
  return error_of_bytes(make_zip(checkpoint_records(pickle_of(value), {floats(6), floats(6)})).bytes());
}

TEST_CASE("every storage type of PyTorch is known, and only three are read") {
  const std::pair<const char*, const char*> refused[] = {
      {"DoubleStorage", "float64"},
      {"LongStorage", "int64"},
      {"IntStorage", "int32"},
      {"ShortStorage", "int16"},
      {"CharStorage", "int8"},
      {"ByteStorage", "uint8"},
      {"BoolStorage", "bool"},
      {"QInt8Storage", "qint8"},
      {"ComplexFloatStorage", "complex64"},
      {"ComplexDoubleStorage", "complex128"},
      {"QUInt8Storage", "quint8"},
      {"QInt32Storage", "qint32"},
      {"QUInt4x2Storage", "quint4x2"},
      {"QUInt2x4Storage", "quint2x4"},
  };
  for (const auto& [storage, type] : refused) {
    std::string error = error_of_value(pickled_tensor({.storage = storage}));
    std::string expected =
        "tensor 'x' is "s + type + " (torch." + storage +
        "): only float32, float16 and bfloat16 are read, so convert it to one of them or remove it";
    CHECK_MESSAGE(contains(error, expected), error);
  }
  CHECK(error_of_value(pickled_tensor({.storage = "FloatStorage"})).empty());
  for (const char* storage : {"HalfStorage", "BFloat16Storage"}) {
    CHECK(error_of_value(pickled_tensor({.elements = 12, .sizes = {12}, .strides = {1}, .storage = storage}))
              .empty());
  }
  CHECK(contains(error_of_value(pickled_tensor({.storage = "Storage"})),
                 "asks for 'torch.Storage', which is refused"));
}

TEST_CASE("any global that no state dict needs is refused and named") {
  for (auto [module, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"os", "system"},
                                                                  {"builtins", "eval"},
                                                                  {"__builtin__", "exec"},
                                                                  {"builtins", "getattr"},
                                                                  {"torch", "load"},
                                                                  {"torch", "float"},
                                                                  {"torch", "floaty"},
                                                                  {"torch.hub", "load"},
                                                                  {"collections", "OrderedDict2"},
                                                                  {"torch._utils", "_rebuild_qtensor"},
                                                                  {"", ""},
                                                                  {"torch.FloatStorage", "x"},
                                                                  {"numpy", "load"}}) {
    std::string refused = "asks for '"s + module + "." + name + "', which is refused";
    std::string global = pickled_global(module, name);
    CHECK(contains(error_of_value(pickled_call(global, {pickled("id")})), "the value 'x' " + refused));
    CHECK(contains(error_of_value(pickled_list({global})), "its pickle " + refused));
    CHECK(contains(error_of_root(pickled_call(global, {})), refused));
    CHECK(contains(error_of_root(global), refused));
    CHECK(contains(error_of_root("\x80\x04" + pickled(module) + pickled(name) + "\x93)\x81"), refused));
  }
  std::string hidden = error_of_value(pickled_tensor() + pickled_global("os", "system") + "0");
  CHECK(contains(hidden, "asks for 'os.system'"));
}

TEST_CASE("a file that is no dict of tensors") {
  CHECK(contains(error_of_root("N"), "holds None, not a dict of tensors"));
  CHECK(contains(error_of_root(pickled(5)), "holds an int, not a dict of tensors"));
  CHECK(contains(error_of_root(pickled_list({})), "holds a list, not a dict of tensors"));
  CHECK(
      contains(error_of_root(pickled_list({pickled_tensor(), "N"})), "holds a list, not a dict of tensors"));
  CHECK(contains(error_of_root(pickled_tuple({pickled_list({pickled_tensor()})})), "holds a tuple, not a"));
  CHECK(contains(error_of_root(pickled_tensor()), "holds a tensor, not a dict of tensors"));
  CHECK(contains(error_of_root(pickled_storage({})), "holds a storage, not a dict of tensors"));
  CHECK(contains(error_of_root("}"), "holds no tensors: its dict is empty"));
  CHECK(contains(error_of_root(pickled_dict({{"lr", pickled(1)}, {"m", "}"}})),
                 "holds no tensors, but lr (an int), m"));
  CHECK(
      contains(error_of_root("}(" + pickled(3) + pickled_tensor() + "u"), "has an int as a key of its dict"));
  CHECK(contains(error_of_root("}(N" + pickled_tensor() + "u"), "has None as a key of its dict"));
  auto twice = pickled_dict({{"a", pickled_tensor()}, {"b", pickled_tensor()}, {"a", pickled_tensor()}});
  CHECK(contains(error_of_root(twice), "has 'a' twice in its dict"));
}

TEST_CASE("a list or a tuple of tensors is read, by their places") {
  TemporaryDirectory directory;
  std::string path = directory / "list.pth";
  std::vector<std::string> items = {pickled_tensor({.key = "1"}),
                                    pickled_tensor({.sizes = {6}, .strides = {1}})};
  for (const std::string& root : {pickled_list(items), pickled_tuple(items)}) {
    make_zip(checkpoint_records(pickle_of(root), {floats(6), floats(6)})).write(path);
    CHECK(Checkpoint::open(path).is_list());
    std::vector<Content> contents = read_all(path);
    REQUIRE(contents.size() == 2);
    CHECK(contents[0] == Content{"0", DType::f32, {2, 3}, floats(6)});
    CHECK(contents[1] == Content{"1", DType::f32, {6}, floats(6)});
  }
  write_file(path, checkpoint_with(pickled_tensor()));
  CHECK(!Checkpoint::open(path).is_list());
  CHECK(contains(error_of_root(pickled_list({pickled_tensor({.storage = "LongStorage"})})),
                 "tensor '0' is int64"));
}

TEST_CASE("a training checkpoint is refused with its keys and the way out") {
  auto inner = pickled_dict({{"emb.weight", pickled_tensor()}});
  auto nested = error_of_root(pickled_dict({{"step", pickled(1)}, {"model", inner}}));
  CHECK(contains(nested, "a training checkpoint that holds step (an int), model (a dict); "));
  CHECK(contains(nested, "torch.save(torch.load(FILE)['model'], NEW_FILE)"));
  auto ordered = ordered_dict + ")R(" + pickled("emb.weight") + pickled_tensor() + "u";
  CHECK(contains(error_of_root(pickled_dict({{"module", ordered}})), "torch.load(FILE)['module']"));
  auto mixed = pickled_dict({{"emb.weight", pickled_tensor()}, {"ema", inner}});
  CHECK(
      contains(error_of_root(mixed), "a training checkpoint that holds emb.weight (a tensor), ema (a dict)"));
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 12; i++) many.emplace_back("key" + std::to_string(i), inner);
  CHECK(contains(error_of_root(pickled_dict(many)), "key7 (a dict) and 4 more; "));
}

TEST_CASE("a file of the package's own converter is refused") {
  auto with_strategy = [](const std::string& strategy) {
    return error_of_root(pickled_dict({{"emb.weight", pickled_tensor()}, {"_strategy", strategy}}));
  };
  CHECK(contains(
      with_strategy(pickled("cuda fp16i8 *10 -> cpu fp32")),
      "was converted by the Python package rwkv for the strategy 'cuda fp16i8 *10 -> cpu fp32': use the "
      "original checkpoint"));
  CHECK(
      contains(with_strategy("N"), "was converted by the Python package rwkv: use the original checkpoint"));
  CHECK(contains(error_of_root(pickled_dict({{"x", pickled_tensor()}, {"_rescale_layer", pickled(6)}})),
                 "was converted by the Python package rwkv"));
}

TEST_CASE("values that are no tensors are named, not read") {
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  auto list = pickled_list({pickled_tensor({.storage = "LongStorage"})});
  auto root = pickled_dict({{"a", pickled(1)}, {"x", pickled_tensor()}, {"b", list}, {"c", "N"}});
  make_zip(checkpoint_records(pickle_of(root), {floats(6)})).write(path);
  Checkpoint checkpoint = Checkpoint::open(path);
  CHECK(checkpoint.tensors().size() == 1);
  CHECK(checkpoint.other_names() == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("the items of an OrderedDict, as Python 2 wrote them") {
  auto entry = [](const std::string& name) { return pickled_list({"U\x01" + name, pickled_tensor()}); };
  auto root = pickled_call(ordered_dict, {pickled_list({entry("a"), entry("b")})});
  CHECK(error_of_root(root).empty());
  auto broken = pickled_call(ordered_dict, {pickled_list({entry("a"), pickled_list({pickled("b")})})});
  CHECK(contains(error_of_root(broken), "holds no tensors"));
}

TEST_CASE("the functions that build tensors, with their arguments and no others") {
  auto storage = pickled_storage({});
  auto sizes = pickled_tuple({pickled(6)}), one = pickled_tuple({pickled(1)}), zero = pickled(0);
  auto hooks = ordered_dict + ")R";
  auto built = [&](const std::string& function, std::vector<std::string> extra) {
    std::vector<std::string> arguments = {storage, zero, sizes, one};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    return error_of_value(pickled_call(utils(function), arguments));
  };
  CHECK(built("_rebuild_tensor", {}).empty());
  CHECK(built("_rebuild_tensor_v2", {"\x89", hooks}).empty());
  CHECK(built("_rebuild_tensor_v2", {"\x89", hooks, "}"}).empty());
  CHECK(built("_rebuild_tensor_v2", {"\x89", hooks, pickled_dict({{"neg", "\x89"}})}).empty());
  CHECK(contains(built("_rebuild_tensor_v2", {"\x89", hooks, pickled_dict({{"neg", "\x88"}})}),
                 "pending operations"));
  CHECK(contains(built("_rebuild_tensor_v2", {"\x89", hooks, pickled_dict({{"neg", "N"}})}),
                 "pending operations"));
  CHECK(contains(built("_rebuild_tensor_v2", {"\x89", hooks, "N"}), "has None as its metadata"));
  CHECK(
      contains(built("_rebuild_tensor", {zero}), "is made by torch._utils._rebuild_tensor with 5 arguments"));
  CHECK(contains(built("_rebuild_tensor_v2", {}), "with 4 arguments"));
  CHECK(contains(built("_rebuild_tensor_v2", {"N", "N", "}", "N"}), "with 8 arguments"));
  CHECK(contains(built("_rebuild_tensor_v3", {"N", "N"}), "with 6 arguments"));
  CHECK(contains(built("_rebuild_tensor_v3", {"N", "N", "N"}), "has a type that is none of PyTorch's"));
  CHECK(contains(error_of_value(pickled_call(utils("_rebuild_tensor"), {})), "with 0 arguments"));

  auto parameter = [&](const std::vector<std::string>& arguments) {
    return error_of_value(pickled_call(utils("_rebuild_parameter"), arguments));
  };
  CHECK(parameter({pickled_tensor(), "\x88", hooks}).empty());
  CHECK(contains(parameter({pickled_tensor(), "\x88"}), "with 2 arguments"));
  CHECK(contains(parameter({"N", "\x88", hooks}), "is a Parameter of what is no tensor"));
  std::string deep = pickled_tensor();
  for (int i = 0; i < 20; i++) deep = pickled_call(utils("_rebuild_parameter"), {deep, "\x88", hooks});
  CHECK(contains(error_of_value(deep), "is wrapped too often"));
}

TEST_CASE("an untyped storage gets its type from the tensor") {
  auto untyped = pickled_tuple({pickled("storage"), pickled_global("torch.storage", "UntypedStorage"),
                                pickled("0"), pickled("cpu"), pickled(24)}) +
                 "Q";
  auto tensor = [&](const std::string& dtype, const std::string& function = "_rebuild_tensor_v3") {
    return error_of_value(pickled_call(utils(function), {untyped, pickled(0), pickled_tuple({pickled(6)}),
                                                         pickled_tuple({pickled(1)}), "\x89", "N", dtype}));
  };
  CHECK(tensor(pickled_global("torch", "float32")).empty());
  for (const char* name : {"float8_e4m3fn", "float8_e5m2", "uint16", "int64", "bool", "complex32", "bits8"}) {
    CHECK(contains(tensor(pickled_global("torch", name)),
                   "tensor 'x' is "s + name + " (torch.UntypedStorage)"));
  }
  CHECK(contains(tensor("}", "_rebuild_tensor_v2"), "tensor 'x' is bytes (torch.UntypedStorage)"));
  auto odd = pickled_tuple({pickled("storage"), pickled_global("torch.storage", "UntypedStorage"),
                            pickled("0"), pickled("cpu"), pickled(25)}) +
             "Q";
  auto odd_tensor = pickled_call(utils("_rebuild_tensor_v3"), {odd, pickled(0), ")", ")", "\x89", "N",
                                                               pickled_global("torch", "float32")});
  CHECK(contains(error_of_value(odd_tensor), "tensor 'x' is float32 (torch.UntypedStorage)"));
}

TEST_CASE("tensors with attributes are read, derived classes are refused") {
  auto from_type = [](const std::string& function, const std::string& type, const std::string& arguments) {
    return error_of_value(pickled_call(pickled_global("torch._tensor", "_rebuild_from_type_v2"),
                                       {function, type, arguments, "}"}));
  };
  auto type = pickled_global("torch", "Tensor"), function = utils("_rebuild_tensor");
  auto arguments = pickled_tuple(
      {pickled_storage({}), pickled(0), pickled_tuple({pickled(6)}), pickled_tuple({pickled(1)})});
  CHECK(from_type(function, type, arguments).empty());
  CHECK(contains(from_type(function, ordered_dict, arguments), "is of a class derived from torch.Tensor"));
  CHECK(contains(from_type(function, "N", arguments), "is of a class derived from torch.Tensor"));
  CHECK(contains(from_type(function, type, "N"), "is made by a call without function or arguments"));
  CHECK(contains(from_type("N", type, arguments), "is made by a call without function or arguments"));
  CHECK(contains(from_type(type, type, arguments), "is not made by a function for tensors"));
}

TEST_CASE("bad persistent ids") {
  auto tensor_of = [](const std::string& storage) {
    return error_of_value(pickled_call(utils("_rebuild_tensor"), {storage, pickled(0), ")", ")"}));
  };
  auto type = pickled_global("torch", "FloatStorage");
  auto id = [&](const std::vector<std::string>& items) { return tensor_of(pickled_tuple(items) + "Q"); };
  auto storage = pickled("storage"), key = pickled("0"), device = pickled("cpu"), six = pickled(6);
  CHECK(id({storage, type, key, device, six}).empty());
  CHECK(id({storage, type, key, device, six, "N"}).empty());
  CHECK(contains(tensor_of("N"), "tensor 'x' has no storage"));
  CHECK(contains(tensor_of(key), "tensor 'x' has no storage"));
  CHECK(contains(tensor_of("NQ"), "has a persistent id that does not say of what"));
  CHECK(contains(tensor_of(")Q"), "has a persistent id that does not say of what"));
  CHECK(contains(id({six, type, key, device, six}), "has a persistent id that does not say of what"));
  CHECK(contains(id({key, type, key, device, six}), "has a persistent id that does not describe a storage"));
  CHECK(contains(id({storage, type, key, device}), "has a persistent id that does not describe a storage"));
  CHECK(contains(id({storage, type, key, device, six, "N", "N"}), "does not describe a storage"));
  CHECK(
      contains(id({storage, "N", key, device, six}), "has a storage without a known class or without a key"));
  CHECK(contains(id({storage, ordered_dict, key, device, six}), "has a storage without a known class"));
  CHECK(contains(id({storage, type, six, device, six}),
                 "has a storage without a known class or without a key"));
  CHECK(contains(id({storage, type, key, device, key}), "has a string as its storage's size"));
  CHECK(contains(id({storage, type, key, device, pickled(-1)}), "has an int as its storage's size"));
  CHECK(contains(id({storage, type, key, device, six, six}), "has a view of a storage that is no tuple"));
  CHECK(
      contains(id({storage, type, pickled("../data.pkl"), device, six}), "the record 'm/data/../data.pkl'"));
  CHECK(contains(id({pickled("module"), type, key, key}), "holds a pickled module with its code"));
}

TEST_CASE("sizes, strides and offsets must lie inside the storage") {
  auto with = [](int64_t offset, std::vector<int64_t> sizes, std::vector<int64_t> strides,
                 int64_t elements = 6) {
    return error_of_value(pickled_tensor(
        {.elements = elements, .sizes = std::move(sizes), .strides = std::move(strides), .offset = offset}));
  };
  constexpr int64_t max = INT64_MAX;
  CHECK(with(0, {}, {}).empty());
  CHECK(with(5, {}, {}).empty());
  CHECK(with(0, {2, 1, 3, 1, 1}, {3, 100, 1, max, 0}).empty());
  CHECK(with(1, {2, 2, 2}, {0, 2, 2}).empty());
  CHECK(with(0, {0}, {1}).empty());
  CHECK(with(max, {0, max, max}, {max, max, max}).empty());
  CHECK(contains(with(6, {}, {}), "its last element would be number 6 of a storage of 6"));
  CHECK(contains(with(0, {7}, {1}), "its last element would be number 6 of a storage of 6"));
  CHECK(contains(with(1, {2, 3}, {3, 1}), "its last element would be number 6"));
  CHECK(contains(with(0, {2}, {6}), "its last element would be number 6"));
  CHECK(contains(with(-1, {2}, {1}), "has an int as its offset"));
  CHECK(contains(with(max, {2}, {1}), "its last element would be number"));
  CHECK(contains(with(max, {3}, {max}), "overflows"));
  CHECK(contains(with(0, {2}, {-1}), "it has a negative stride"));
  CHECK(contains(with(0, {0, 2}, {1, -1}), "it has a negative stride"));
  CHECK(contains(with(0, {-2}, {1}), "negative size"));
  CHECK(contains(with(0, {int64_t{1} << 32, int64_t{1} << 31}, {0, 0}), "the product of sizes overflows"));
  CHECK(contains(with(0, {int64_t{1} << 32, int64_t{1} << 32}, {0, 0}), "the product of sizes overflows"));
  CHECK(contains(with(0, {2, 3}, {1}), "it has 2 sizes and 1 strides"));
  CHECK(contains(with(0, {6}, {1}, 5), "should have 5 elements of 4 bytes, but has 24 bytes"));
  CHECK(contains(with(0, {6}, {1}, max), "should have 9223372036854775807 elements of 4 bytes"));
  CHECK(contains(with(0, {6}, {1}, 6 + (int64_t{1} << 62)), "should have"));
  CHECK(contains(with(0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1)),
                 "no tuple of at most 64 numbers"));
  CHECK(with(0, std::vector<int64_t>(64, 1), std::vector<int64_t>(64, 1)).empty());
}

TEST_CASE("sizes, strides and offsets must be numbers") {
  auto with = [](const std::string& offset, const std::string& sizes, const std::string& strides) {
    return error_of_value(
        pickled_call(utils("_rebuild_tensor"), {pickled_storage({}), offset, sizes, strides}));
  };
  auto zero = pickled(0), six = pickled_tuple({pickled(6)}), one = pickled_tuple({pickled(1)});
  CHECK(with(zero, six, one).empty());
  CHECK(contains(with("N", six, one), "tensor 'x' has None as its offset"));
  CHECK(contains(with("\x88", six, one), "tensor 'x' has a bool as its offset"));
  CHECK(contains(with("\x8a\x09\0\0\0\0\0\0\0\0\1"s, six, one), "tensor 'x' has an int as its offset"));
  CHECK(contains(with(zero, pickled(6), one), "has no tuple of at most 64 numbers as its sizes"));
  CHECK(
      contains(with(zero, "](" + pickled(6) + "e", one), "has no tuple of at most 64 numbers as its sizes"));
  CHECK(contains(with(zero, six, pickled_tuple({"N"})), "has None among its strides"));
  CHECK(contains(with(zero, pickled_tuple({pickled("6")}), one), "has a string among its sizes"));
}

TEST_CASE("many keys that share one value take time in proportion") {
  // A chain of dicts that are mentioned again and again, and a dict of many entries under many keys.
  std::string inner = "}(";
  for (int i = 0; i < 100'000; i++) inner += "J" + le(i) + "N";
  std::string root = "}(" + pickled("first") + inner + "uq\x05";
  for (int i = 0; i < 100'000; i++) root += pickled("k" + std::to_string(i)) + "h\x05";
  CHECK(contains(error_of_root(root + "u"), "holds no tensors, but first (a dict), k0 (a dict)"));
}

TEST_CASE("control characters in names do not reach a message") {
  auto root = pickled_dict({{"a\n\x1b[31m", pickled_tensor({.storage = "LongStorage"})}});
  CHECK(contains(error_of_root(root), "tensor 'a\\x0a\\x1b[31m' is int64"));
  CHECK(contains(error_of_value(pickled_global("o\rs", "system\t")), "asks for 'o\\x0ds.system\\x09'"));
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
