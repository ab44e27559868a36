// The stack machine: what plain data need is read, and every misuse of an opcode is an error.
#include "model/checkpoint/pickle.h"

#include <doctest/doctest.h>

#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

using namespace std::string_literals;
using Kind = PickleNode::Kind;

/// Keeps the bytes that the values point into.
struct Read {
  std::string bytes;
  Pickle pickle;
  explicit Read(std::string b) : bytes(std::move(b)), pickle(read_pickle(as_bytes(bytes), "FILE")) {}
  [[nodiscard]] const PickleValue& root() const { return pickle.root; }
  [[nodiscard]] const PickleNode& node() const { return *pickle.root.node(); }
};

std::string error_of_pickle(const std::string& bytes) {
  std::string error = error_of([&] { Read read(bytes); });
  CHECK((error.empty() || error.starts_with("FILE: ")));
  return error;
}

TEST_CASE("numbers, as every protocol writes them") {
  auto integer = [](const std::string& bytes) { return *Read(bytes + ".").root().integer(); };
  CHECK(integer("K\xff") == 255);
  CHECK(integer("M\x34\x12") == 0x1234);
  CHECK(integer("J\xfe\xff\xff\xff") == -2);
  CHECK(integer("I-17\n") == -17);
  CHECK(integer("L123456789012L\n") == 123456789012);
  CHECK(integer("\x8a\0"s) == 0);
  CHECK(integer("\x8a\x01\xff") == -1);
  CHECK(integer("\x8a\x02\xff\x00"s) == 255);
  CHECK(integer("\x8a\x08\0\0\0\0\0\0\0\x80"s) == INT64_MIN);
  CHECK(integer("\x8b\x05\0\0\0\0\0\0\0\x01"s) == int64_t{1} << 32);
  CHECK(*Read("I01\n.").root().boolean());
  CHECK_FALSE(*Read("I00\n.").root().boolean());
  CHECK(*Read("\x88.").root().boolean());
  CHECK_FALSE(*Read("\x89.").root().boolean());
  CHECK(Read("N.").root().is_none());
  CHECK(std::get<double>(Read("G\x3f\xf8\0\0\0\0\0\0."s).root().data()) == 1.5);
  CHECK(Read("\x8a\x09\0\0\0\0\0\0\0\0\x01."s).root().long_integer()->text.size() == 9);
  for (const char* text :
       {"I1.5\n.", "Ix\n.", "I\n.", "I99999999999999999999\n.", "L1\n2L\n.", "I 1\n.", "LL\n."}) {
    CHECK_FALSE(error_of_pickle(text).empty());
  }
}

TEST_CASE("texts and bytes, as every protocol writes them") {
  for (const std::string& bytes :
       {"U\x02hi"s, "T\x02\0\0\0hi"s, "X\x02\0\0\0hi"s, "\x8c\x02hi"s, "\x8d\x02\0\0\0\0\0\0\0hi"s}) {
    CHECK(*Read(bytes + ".").root().string() == "hi");
  }
  for (const std::string& bytes :
       {"C\x02hi"s, "B\x02\0\0\0hi"s, "\x8e\x02\0\0\0\0\0\0\0hi"s, "\x96\x02\0\0\0\0\0\0\0hi"s}) {
    CHECK(std::get<PickleBytes>(Read(bytes + ".").root().data()).text == "hi");
  }
}

TEST_CASE("containers keep their items in order") {
  Read read("\x80\x02](K\x01)K\x02\x85K\x03K\x04\x86NNN\x87(NNNNte}(K\x05K\x06uK\x07K\x08s\x86.");
  const PickleNode& pair = read.node();
  REQUIRE(pair.kind == Kind::tuple);
  const PickleNode& list = *pair.items[0].node();
  const PickleNode& dict = *pair.items[1].node();
  REQUIRE(list.kind == Kind::list);
  REQUIRE(list.items.size() == 6);
  CHECK(*list.items[0].integer() == 1);
  for (size_t i = 1; i < 6; i++) CHECK(list.items[i].node()->items.size() == i - 1);
  REQUIRE(dict.kind == Kind::dict);
  REQUIRE(dict.items.size() == 4);
  CHECK(*dict.items[3].integer() == 8);
  Read set("\x80\x04\x8f(K\x01K\x02\x90.");
  CHECK(set.node().kind == Kind::set);
  CHECK(set.node().items.size() == 2);
  CHECK(Read("\x80\x04(K\x01\x91.").node().kind == Kind::set);
  CHECK(Read("]K\x01"
             "aK\x02"
             "a.")
            .node()
            .items.size() == 2);
}

TEST_CASE("calls, globals, persistent ids and states stay what they are") {
  Read read(
      "\x80\x02"
      "cmod\nname\nK\x01\x85RK\x02K\x03s}bK\x04Q\x86.");
  const PickleNode& call = *read.node().items[0].node();
  REQUIRE(call.kind == Kind::call);
  CHECK(call.items[0].node()->is_global("mod", "name"));
  CHECK_FALSE(call.items[0].node()->is_global("mod", "other"));
  CHECK(call.items[1].node()->items.size() == 1);
  CHECK(*call.items[3].integer() == 3);
  CHECK(call.has_state);
  const PickleNode& persistent = *read.node().items[1].node();
  CHECK(persistent.kind == Kind::persistent);
  CHECK(*persistent.items[0].integer() == 4);
  REQUIRE(read.pickle.globals.size() == 1);
  CHECK(Read("\x80\x04\x8c\x01m\x8c\x01n\x93)\x81.").node().items[0].node()->is_global("m", "n"));
}

TEST_CASE("the memo gives back what was put there") {
  Read read("\x80\x02]q\x07r\0\0\1\0000h\x07j\0\0\1\0h\x07\x87."s);
  for (const PickleValue& item : read.node().items) CHECK(item.node() == read.node().items[0].node());
  Read memoized(
      "\x80\x04]\x94K\x05\x94"
      "00h\x00h\x01\x86."s);
  CHECK(*memoized.node().items[1].integer() == 5);
  CHECK(contains(error_of_pickle("\x80\x02h\x00."s), "the memo has no value 0 (byte 2)"));
  CHECK(contains(error_of_pickle("j\xff\xff\xff\xff."), "the memo has no value 4294967295"));
}

TEST_CASE("values can be doubled and dropped") {
  CHECK(Read("K\x01"
             "2\x86.")
            .node()
            .items.size() == 2);
  CHECK(*Read("K\x01K\x02"
              "0.")
             .root()
             .integer() == 1);
  CHECK(*Read("K\x01(K\x02K\x03"
              "1.")
             .root()
             .integer() == 1);
  CHECK(*Read("K\x01("
              "0.")
             .root()
             .integer() == 1);
}

TEST_CASE("the size of a pickle is where it stops") { CHECK(Read("\x80\x02N.and more").pickle.size == 4); }

TEST_CASE("a pickle that does not stop, or stops too early") {
  CHECK(contains(error_of_pickle(""), "has no end (STOP) within 0 bytes"));
  CHECK(contains(error_of_pickle("\x80\x02N"), "has no end (STOP) within 3 bytes"));
  CHECK(contains(error_of_pickle("."), "the stack holds too few values (byte 0)"));
  CHECK(contains(error_of_pickle("NN."), "STOP leaves values on the stack"));
  CHECK(contains(error_of_pickle("N(."), "the stack holds too few values"));
  CHECK(contains(error_of_pickle("(N."), "STOP leaves values on the stack"));
}

TEST_CASE("every opcode without its operands on the stack") {
  const std::string opcodes[] = {"0",    "2",    "a", "b",    "R",    "\x81", "s",         "\x85",
                                 "\x86", "\x87", "Q", "\x93", "\x94", "q\0"s, "r\0\0\0\0"s};
  for (const std::string& opcode : opcodes) {
    CHECK(contains(error_of_pickle(opcode + "N."), "the stack holds too few values (byte 0)"));
    // Operands below a mark are out of reach.
    CHECK(
        contains(error_of_pickle("NNN(" + opcode + "."), opcode == "0" ? "STOP" : "too few values (byte 4)"));
  }
  for (const std::string& opcode : {"R"s, "\x81"s, "s"s, "\x86"s, "\x93"s, "a"s, "b"s}) {
    CHECK_MESSAGE(contains(error_of_pickle("N" + opcode + "."), "too few values (byte 1)"), opcode);
  }
  for (const std::string& opcode : {"t"s, "u"s, "e"s, "1"s, "\x90"s, "\x91"s}) {
    CHECK(contains(error_of_pickle("}" + opcode + "."), "a MARK is missing (byte 1)"));
  }
  for (const std::string& opcode : {"u"s, "e"s, "\x90"s}) {
    CHECK(contains(error_of_pickle("(" + opcode + "."), "too few values (byte 1)"));
  }
}

TEST_CASE("operands of the wrong kind") {
  CHECK(contains(error_of_pickle("\x80\x02)NNs."), "items are set in what is no dict (byte 5)"));
  CHECK(contains(error_of_pickle("K\x01(NNu."), "items are set in what is no dict"));
  CHECK(contains(error_of_pickle("](NNu."), "items are set in what is no dict"));
  CHECK(contains(error_of_pickle("}(NNNu."), "a key has no value"));
  CHECK(contains(error_of_pickle("}Na."), "items are added to what is no list"));
  CHECK(contains(error_of_pickle(")(Ne."), "items are added to what is no list"));
  CHECK(contains(error_of_pickle("](N\x90."), "items are added to what is no set"));
  CHECK(contains(error_of_pickle("N)R."), "what is called is no function"));
  CHECK(contains(error_of_pickle("))R."), "what is called is no function"));
  CHECK(contains(error_of_pickle("cm\nn\n)R)R."), "what is called is no function"));
  CHECK(contains(error_of_pickle("cm\nn\nNR."), "the arguments of a call are no tuple"));
  CHECK(contains(error_of_pickle("cm\nn\n]R."), "the arguments of a call are no tuple"));
  CHECK(contains(error_of_pickle("cm\nn\n]\x81."), "the arguments of a call are no tuple"));
  CHECK(contains(error_of_pickle("}Nb."), "BUILD needs an object without state"));
  CHECK(contains(error_of_pickle("cm\nn\n)RNbNb."), "BUILD needs an object without state"));
  CHECK(contains(error_of_pickle("K\x01K\x02\x93."), "the name of a global is no string"));
  CHECK(contains(error_of_pickle("NU\x01n\x93."), "the name of a global is no string"));
}

TEST_CASE("unknown opcodes, protocols and opcodes that plain data do not need") {
  for (int code = 0; code < 256; code++) {
    std::string error = error_of_pickle(std::string(1, static_cast<char>(code)));
    CHECK_FALSE(error.empty());
    CHECK(contains(error, "byte"));
  }
  CHECK(contains(error_of_pickle("\x80\x02\xff."), "0xff is no pickle opcode (byte 2)"));
  CHECK(contains(error_of_pickle("?"), "0x3f is no pickle opcode"));
  for (int protocol : {0, 6, 255}) {
    std::string bytes = "\x80" + std::string(1, static_cast<char>(protocol)) + "N.";
    CHECK(contains(error_of_pickle(bytes), "pickle protocol " + std::to_string(protocol) + " is unknown"));
  }
  const std::pair<const char*, const char*> refused[] = {
      {"F1.5\n.", "FLOAT"},      {"Pid\n.", "PERSID"},
      {"S'a'\n.", "STRING"},     {"Va\n.", "UNICODE"},
      {"(d.", "DICT"},           {"g0\n.", "GET"},
      {"(im\nn\n.", "INST"},     {"(l.", "LIST"},
      {"(cm\nn\no.", "OBJ"},     {"Np0\n.", "PUT"},
      {"\x82\x01.", "EXT1"},     {"\x83\x01\x01.", "EXT2"},
      {"\x84\x01\x01.", "EXT4"}, {"\x92.", "NEWOBJ_EX"},
      {"\x97.", "NEXT_BUFFER"},  {"\x98.", "READONLY_BUFFER"},
  };
  for (const auto& [bytes, name] : refused) {
    CHECK(contains(error_of_pickle(bytes), "the opcode "s + name + " is not for plain data: refused"));
  }
}

TEST_CASE("lengths beyond the end") {
  const std::string opcodes[] = {"U\x05"s,
                                 "T\xff\xff\xff\xff"s,
                                 "X\xff\xff\xff\x7f"s,
                                 "\x8c\x05"s,
                                 "C\x05"s,
                                 "B\xff\xff\xff\xff"s,
                                 "\x8a\xff"s,
                                 "\x8b\xff\xff\xff\xff"s,
                                 "\x8d\xff\xff\xff\xff\xff\xff\xff\xff"s,
                                 "\x8e\0\0\0\0\0\0\0\x80"s,
                                 "\x96\xf6\xff\xff\xff\xff\xff\xff\xff"s,
                                 "\x95\x09\0\0\0\0\0\0\0"s};
  for (const std::string& opcode : opcodes) CHECK_FALSE(error_of_pickle("N" + opcode + ".").empty());
  const std::string cut[] = {"K",       "M\1",   "J\1\1\1", "G\1\1\1\1\1\1\1", "I12",  "L12",    "X\1\0\0"s,
                             "cmodule", "cm\nn", "\x80",    "\x95\0"s,         "\x8a", "\x8b\1", "h",
                             "j\1",     "Nq",    "Nr\1"};
  for (const std::string& bytes : cut) CHECK_FALSE(error_of_pickle(bytes).empty());
}

TEST_CASE("a pickle cut at every byte is refused") {
  std::string bytes = pickle_of(pickled_dict({{"x", pickled_tensor()}, {"y", pickled_tensor()}}));
  REQUIRE(error_of_pickle(bytes).empty());
  for (size_t size = 0; size < bytes.size(); size++)
    CHECK_FALSE(error_of_pickle(bytes.substr(0, size)).empty());
}

TEST_CASE("depth takes no stack") {
  constexpr size_t depth = 300'000;
  CHECK(Read(std::string(depth, ']') + std::string(depth - 1, 'a') + ".").node().kind == Kind::list);
  std::string tuples = "N";
  for (size_t i = 0; i < depth; i++) tuples += '\x85';
  CHECK(Read(tuples + ".").node().kind == Kind::tuple);
  CHECK(Read(std::string(depth, '(') + std::string(depth, 't') + ".").node().kind == Kind::tuple);
}

TEST_CASE("a list may hold itself, and tuples that double do not grow") {
  Read cycle("]q\0h\0a."s);
  CHECK(cycle.node().items[0].node() == &cycle.node());
  std::string bomb = "N";
  for (int i = 0; i < 1000; i++) bomb += "2\x86";
  CHECK(Read(bomb + ".").pickle.nodes.size() == 1000);
}

TEST_CASE("a million keys are read, and the number of values has a limit") {
  std::string keys = "}(";
  for (uint32_t i = 0; i < 1'000'000; i++) keys += "J" + le(i) + "N";
  CHECK(Read(keys + "u.").node().items.size() == 2'000'000);
  std::string limit = "more than 4194304 values";
  for (std::string opcode : {"N", "(", "]", "2", "\x94"}) {
    std::string bytes = "N";
    for (uint64_t i = 0; i <= pickle_max_values; i++) bytes += opcode;
    CHECK(contains(error_of_pickle(bytes), limit));
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
