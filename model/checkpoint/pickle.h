// Python's pickle format as plain data: a stack machine for protocols 1 to 5 that calls nothing and imports
// nothing. What a pickle asks Python to call stays a node that says so; what it means is decided by the
// reader of the result, which must refuse every global that it does not know.
//
// Refused by name: opcodes that plain data never need (EXT, INST, OBJ, NEWOBJ_EX, out-of-band buffers) and
// the text opcodes of protocol 0, except for the numbers that protocol 1 still writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rwkv {

/// More values than this in one pickle are an Error: they bound the memory that a small file can ask for.
constexpr uint64_t pickle_max_values = 1 << 22;

/// A longer pickle is none of a checkpoint, which takes about 150 bytes per tensor: its readers refuse it.
constexpr uint64_t pickle_max_size = 64 << 20;

struct PickleNode;

/// Text of bytes and bytearray objects, and integers beyond 64 bits as little-endian two's complement.
struct PickleBytes {
  std::string_view text;
};
struct PickleLong {
  std::string_view text;
};

/// A value copies like a pointer: text points into the pickle, nodes belong to the Pickle.
class PickleValue {
 public:
  using Data = std::variant<std::monostate, bool, int64_t, double, std::string_view, PickleBytes, PickleLong,
                            PickleNode*>;

  PickleValue() = default;  ///< None
  template <class T>
  explicit PickleValue(T value) : data_(value) {}

  [[nodiscard]] bool is_none() const { return std::holds_alternative<std::monostate>(data_); }
  /// Each of these is nullptr for a value of another kind.
  [[nodiscard]] const bool* boolean() const { return std::get_if<bool>(&data_); }
  [[nodiscard]] const int64_t* integer() const { return std::get_if<int64_t>(&data_); }
  [[nodiscard]] const std::string_view* string() const { return std::get_if<std::string_view>(&data_); }
  [[nodiscard]] const PickleLong* long_integer() const { return std::get_if<PickleLong>(&data_); }
  [[nodiscard]] const PickleNode* node() const {
    const auto* pointer = std::get_if<PickleNode*>(&data_);
    return pointer == nullptr ? nullptr : *pointer;
  }
  [[nodiscard]] const Data& data() const { return data_; }

 private:
  Data data_;
};

struct PickleNode {
  enum class Kind : uint8_t {
    tuple,       ///< items
    list,        ///< items
    set,         ///< items
    dict,        ///< items: key, value, key, value ... as set, so a key may stand twice
    global,      ///< items: module, name (both strings)
    call,        ///< items: function (a global or persistent node), arguments (a tuple node), and then
                 ///< key, value ... if the result was filled like a dict
    persistent,  ///< items: the id
  };
  Kind kind;
  bool has_state = false;  ///< a call only: BUILD set `state`
  std::vector<PickleValue> items;
  PickleValue state;

  [[nodiscard]] bool is_global(std::string_view module, std::string_view name) const {
    return kind == Kind::global && *items[0].string() == module && *items[1].string() == name;
  }
};

/// Move-only: the values point to the nodes.
struct Pickle {
  Pickle() = default;
  Pickle(Pickle&&) = default;
  Pickle& operator=(Pickle&&) = default;

  PickleValue root;
  std::vector<const PickleNode*> globals;  ///< one for each mention, in order
  uint64_t size = 0;                       ///< bytes up to and including STOP
  std::deque<PickleNode> nodes;            ///< the owner of all nodes; they may form cycles
};

/// Reads one pickle from the start of `bytes`, which must outlive the result. Time and memory are in
/// proportion to its size, nesting takes no stack. Throws Error; `where` begins the message, which gives the
/// offset.
Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where);

}  // namespace rwkv
