#include "model/checkpoint/pickle.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "model/checkpoint/byte_reader.h"
#include "model/checkpoint/pickle_opcodes.h"

namespace rwkv {
namespace {

using Kind = PickleNode::Kind;

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::string& where)
      : where_(where), reader_(bytes, where), size_(bytes.size()) {}

  Pickle run() {
    for (;;) {
      if (reader_.remaining() == 0) {
        throw Error(fmt::format("{}: the pickle has no end (STOP) within {} bytes", where_, size_));
      }
      start_ = reader_.offset();
      uint8_t code = reader_.u8();
      if (code == op_stop) break;
      if (!scalar(code) && !text(code) && !container(code) && !object(code) && !memo(code)) refuse(code);
    }
    pickle_.root = pop();
    if (!stack_.empty() || !marks_.empty()) fail("STOP leaves values on the stack");
    pickle_.size = reader_.offset();
    return std::move(pickle_);
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(fmt::format("{}: {} (byte {})", where_, what, start_));
  }
  [[noreturn]] void refuse(uint8_t code) const {
    for (const NamedOpcode& opcode : refused_opcodes) {
      if (opcode.code == code) fail(fmt::format("the opcode {} is not for plain data: refused", opcode.name));
    }
    fail(fmt::format("{:#04x} is no pickle opcode", code));
  }

  void count() {
    if (++values_ > pickle_max_values) fail(fmt::format("more than {} values", pickle_max_values));
  }
  template <class T>
  void push(T value) {
    count();
    stack_.push_back(PickleValue(value));
  }
  PickleNode* make(Kind kind, std::vector<PickleValue> items = {}) {
    return &pickle_.nodes.emplace_back(PickleNode{kind, false, std::move(items), {}});
  }
  void push_node(Kind kind, std::vector<PickleValue> items = {}) { push(make(kind, std::move(items))); }

  /// Values below the last mark are out of reach.
  [[nodiscard]] size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  void need(size_t values) const {
    if (available() < values) fail("the stack holds too few values");
  }
  PickleValue pop() {
    need(1);
    PickleValue value = stack_.back();
    stack_.pop_back();
    return value;
  }
  std::vector<PickleValue> pop_many(size_t values) {
    need(values);
    std::vector<PickleValue> items(stack_.end() - static_cast<ptrdiff_t>(values), stack_.end());
    stack_.resize(stack_.size() - values);
    return items;
  }
  std::vector<PickleValue> pop_to_mark() {
    if (marks_.empty()) fail("a MARK is missing");
    auto items = pop_many(available());
    marks_.pop_back();
    return items;
  }
  PickleNode* top_node() {
    need(1);
    const auto* node = std::get_if<PickleNode*>(&stack_.back().data());
    return node == nullptr ? nullptr : *node;
  }

  bool scalar(uint8_t code);
  bool text(uint8_t code);
  bool container(uint8_t code);
  bool object(uint8_t code);
  bool memo(uint8_t code);
  void push_decimal(std::string_view digits, bool is_long);
  void push_long(std::string_view bytes);
  void append(Kind kind, std::vector<PickleValue> items);
  void set_items(std::vector<PickleValue> items);
  void call();
  void build();
  void put(uint64_t index);
  void get(uint64_t index);

  const std::string& where_;
  ByteReader reader_;
  uint64_t size_;
  uint64_t start_ = 0;  // of the current opcode
  uint64_t values_ = 0;
  std::vector<PickleValue> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<uint64_t, PickleValue> memo_;
  Pickle pickle_;
};

void Machine::push_decimal(std::string_view digits, bool is_long) {
  // Protocols 0 and 1 write booleans as these integers.
  if (!is_long && (digits == "00" || digits == "01")) return push(digits == "01");
  if (is_long && digits.ends_with('L')) digits.remove_suffix(1);
  int64_t value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    fail(fmt::format("'{}' is no integer of 64 bits", printable(digits)));
  }
  push(value);
}

void Machine::push_long(std::string_view bytes) {
  if (bytes.size() > 8) return push(PickleLong{bytes});
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  size_t unused = 64 - 8 * bytes.size();  // the sign stands in the last byte
  if (unused < 64) value = static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
  push(static_cast<int64_t>(value));
}

bool Machine::scalar(uint8_t code) {
  switch (code) {
    case op_none:
      push(std::monostate());
      return true;
    case op_newtrue:
      push(true);
      return true;
    case op_newfalse:
      push(false);
      return true;
    case op_int:
      push_decimal(reader_.line(), false);
      return true;
    case op_long:
      push_decimal(reader_.line(), true);
      return true;
    case op_binint:
      push(int64_t{reader_.integer<int32_t>()});
      return true;
    case op_binint1:
      push(int64_t{reader_.u8()});
      return true;
    case op_binint2:
      push(int64_t{reader_.u16()});
      return true;
    case op_long1:
      push_long(reader_.text(reader_.u8()));
      return true;
    case op_long4:
      push_long(reader_.text(reader_.u32()));
      return true;
    case op_binfloat:
      push(std::bit_cast<double>(__builtin_bswap64(reader_.u64())));
      return true;
    default:
      return false;
  }
}

bool Machine::text(uint8_t code) {
  switch (code) {
    // The strings of Python 2 are text here: its dicts have them as keys.
    case op_short_binstring:
    case op_short_binunicode:
      push(reader_.text(reader_.u8()));
      return true;
    case op_binstring:
    case op_binunicode:
      push(reader_.text(reader_.u32()));
      return true;
    case op_binunicode8:
      push(reader_.text(reader_.u64()));
      return true;
    case op_short_binbytes:
      push(PickleBytes{reader_.text(reader_.u8())});
      return true;
    case op_binbytes:
      push(PickleBytes{reader_.text(reader_.u32())});
      return true;
    case op_binbytes8:
    case op_bytearray8:
      push(PickleBytes{reader_.text(reader_.u64())});
      return true;
    default:
      return false;
  }
}

void Machine::append(Kind kind, std::vector<PickleValue> items) {
  PickleNode* node = top_node();
  if (node == nullptr || node->kind != kind) {
    fail(fmt::format("items are added to what is no {}", kind == Kind::list ? "list" : "set"));
  }
  node->items.insert(node->items.end(), items.begin(), items.end());
}

void Machine::set_items(std::vector<PickleValue> items) {
  PickleNode* node = top_node();
  if (node == nullptr || (node->kind != Kind::dict && node->kind != Kind::call)) {
    fail("items are set in what is no dict");
  }
  if (items.size() % 2 != 0) fail("a key has no value");
  node->items.insert(node->items.end(), items.begin(), items.end());
}

bool Machine::container(uint8_t code) {
  switch (code) {
    case op_mark:
      count();
      marks_.push_back(stack_.size());
      return true;
    case op_empty_tuple:
      push_node(Kind::tuple);
      return true;
    case op_tuple1:
    case op_tuple2:
    case op_tuple3:
      push_node(Kind::tuple, pop_many(size_t{code} - op_tuple1 + 1));
      return true;
    case op_tuple:
      push_node(Kind::tuple, pop_to_mark());
      return true;
    case op_empty_list:
      push_node(Kind::list);
      return true;
    case op_empty_dict:
      push_node(Kind::dict);
      return true;
    case op_empty_set:
      push_node(Kind::set);
      return true;
    case op_frozenset:
      push_node(Kind::set, pop_to_mark());
      return true;
    case op_append:
      append(Kind::list, pop_many(1));
      return true;
    case op_appends:
      append(Kind::list, pop_to_mark());
      return true;
    case op_additems:
      append(Kind::set, pop_to_mark());
      return true;
    case op_setitem:
      set_items(pop_many(2));
      return true;
    case op_setitems:
      set_items(pop_to_mark());
      return true;
    default:
      return false;
  }
}

void Machine::call() {
  auto items = pop_many(2);
  const PickleNode* function = items[0].node();
  const PickleNode* arguments = items[1].node();
  if (function == nullptr || (function->kind != Kind::global && function->kind != Kind::persistent)) {
    fail("what is called is no function");
  }
  if (arguments == nullptr || arguments->kind != Kind::tuple) fail("the arguments of a call are no tuple");
  push_node(Kind::call, std::move(items));
}

void Machine::build() {
  PickleValue state = pop();
  PickleNode* node = top_node();
  if (node == nullptr || node->kind != Kind::call || node->has_state) {
    fail("BUILD needs an object without state");
  }
  node->has_state = true;
  node->state = state;
}

bool Machine::object(uint8_t code) {
  switch (code) {
    case op_global:
    case op_stack_global: {
      std::vector<PickleValue> names;
      if (code == op_global) {
        std::string_view module = reader_.line();
        names = {PickleValue(module), PickleValue(reader_.line())};
      } else {
        names = pop_many(2);
      }
      if (names[0].string() == nullptr || names[1].string() == nullptr) {
        fail("the name of a global is no string");
      }
      push_node(Kind::global, std::move(names));
      pickle_.globals.push_back(stack_.back().node());
      return true;
    }
    case op_reduce:
    case op_newobj:
      call();
      return true;
    case op_build:
      build();
      return true;
    case op_binpersid:
      push_node(Kind::persistent, pop_many(1));
      return true;
    default:
      return false;
  }
}

void Machine::put(uint64_t index) {
  need(1);
  count();
  memo_[index] = stack_.back();
}

void Machine::get(uint64_t index) {
  auto found = memo_.find(index);
  if (found == memo_.end()) fail(fmt::format("the memo has no value {}", index));
  count();
  stack_.push_back(found->second);
}

bool Machine::memo(uint8_t code) {
  switch (code) {
    case op_binput:
      put(reader_.u8());
      return true;
    case op_long_binput:
      put(reader_.u32());
      return true;
    case op_memoize:
      put(memo_.size());
      return true;
    case op_binget:
      get(reader_.u8());
      return true;
    case op_long_binget:
      get(reader_.u32());
      return true;
    case op_dup: {
      need(1);
      push(stack_.back().data());
      return true;
    }
    case op_pop:
      // A mark on top is popped like a value.
      if (available() == 0 && !marks_.empty()) {
        marks_.pop_back();
      } else {
        pop();
      }
      return true;
    case op_pop_mark:
      pop_to_mark();
      return true;
    case op_proto: {
      uint8_t protocol = reader_.u8();
      if (protocol < 1 || protocol > 5) fail(fmt::format("pickle protocol {} is unknown", protocol));
      return true;
    }
    case op_frame: {
      uint64_t size = reader_.u64();
      if (size > reader_.remaining()) fail(fmt::format("a frame of {} bytes reaches beyond the end", size));
      return true;
    }
    default:
      return false;
  }
}

}  // namespace

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where) {
  return Machine(bytes, where).run();
}

}  // namespace rwkv
