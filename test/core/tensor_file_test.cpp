#include "core/tensor_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string with_length(uint64_t length, std::string_view rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file.append(rest);
}

/// A file with this header and this many bytes of data.
std::string file_of(std::string_view header, size_t data = 0) {
  return with_length(header.size(), header) + std::string(data, 'd');
}

TensorFileHeader parsed(std::string_view file) { return parse_tensor_file(bytes_of(file), "f"); }

std::string refusal(std::string_view file) {
  return error_of([&] { parsed(file); });
}

/// The refusal of one tensor's description, with 8 bytes of data.
std::string refusal_of_entry(const std::string& description) {
  return refusal(file_of("{\"a\":" + description + "}", 8));
}

bool equal(const TensorFileHeader& a, const TensorFileHeader& b) {
  auto same = [](const TensorEntry& x, const TensorEntry& y) {
    return x.name == y.name && x.dtype == y.dtype && x.sizes == y.sizes && x.offset == y.offset &&
           x.bytes == y.bytes;
  };
  return a.metadata == b.metadata && a.data_begin == b.data_begin && a.by_name == b.by_name &&
         std::ranges::equal(a.entries, b.entries, same);
}

/// What parse_tensor_file() promises of anything it returns.
bool well_formed(const TensorFileHeader& header, size_t file_size) {
  uint64_t end = 0;
  for (const TensorEntry& entry : header.entries) {
    uint64_t elements = 1;
    for (int64_t size : entry.sizes) elements *= static_cast<uint64_t>(size);
    if (entry.offset != end || entry.bytes != elements * size_of(entry.dtype)) return false;
    if (header.find(entry.name) != &entry) return false;
    end += entry.bytes;
  }
  return header.data_begin + end == file_size;
}

std::vector<TensorEntry> sample_entries() {
  return {{.name = "emb.weight", .dtype = DType::bf16, .sizes = {5, 4}},
          {.name = "scalar", .dtype = DType::i32, .sizes = {}},
          {.name = "nothing", .dtype = DType::f32, .sizes = {3, 0}},
          {.name = "bytes", .dtype = DType::u8, .sizes = {3}},
          {.name = "int8", .dtype = DType::i8, .sizes = {1, 2, 3, 4}},
          {.name = "\xe4\xb8\xad \"quoted\"\n", .dtype = DType::f16, .sizes = {7}},
          {.name = "f32", .dtype = DType::f32, .sizes = {2}}};
}

constexpr size_t sample_data = 40 + 4 + 0 + 3 + 24 + 14 + 8;

constexpr const char* small_header =
    R"({"__metadata__":{"k":"v"},"b":{"dtype":"I8","shape":[2,2],"data_offsets":[6,10]},)"
    R"("a":{"dtype":"F16","shape":[3],"data_offsets":[0,6]}})";

}  // namespace

TEST_CASE("tensor file: what is written is read") {
  Metadata metadata = {{"format", "1"}, {"source", "a \"b\"\n\xe4\xb8\xad"}, {"", ""}};
  std::vector<TensorEntry> entries = sample_entries();
  std::string file = make_tensor_file_header(metadata, entries) + std::string(sample_data, 'd');
  TensorFileHeader header = parsed(file);
  CHECK(header.data_begin == 4096);
  CHECK(header.metadata == metadata);
  REQUIRE(header.entries.size() == entries.size());
  CHECK(well_formed(header, file.size()));
  for (size_t i = 0; i < entries.size(); i++) {
    CAPTURE(i);
    CHECK(header.entries[i].name == entries[i].name);
    CHECK(header.entries[i].dtype == entries[i].dtype);
    CHECK(header.entries[i].sizes == entries[i].sizes);
    CHECK(header.entries[i].offset == entries[i].offset);
    CHECK(header.entries[i].bytes == entries[i].bytes);
  }
  CHECK(entries.back().offset == 85);
  CHECK(entries.back().bytes == 8);
}

TEST_CASE("tensor file: the header is text that any reader of the format takes") {
  std::vector<TensorEntry> entries = {{.name = "a", .dtype = DType::f16, .sizes = {2, 3}},
                                      {.name = "b", .dtype = DType::u8, .sizes = {5}}};
  std::string header = make_tensor_file_header({{"k", "v"}}, entries);
  std::string text = R"({"__metadata__":{"k":"v"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
                     R"("b":{"dtype":"U8","shape":[5],"data_offsets":[12,17]}})";
  CHECK(header == with_length(4088, text + std::string(4088 - text.size(), ' ')));
  std::vector<TensorEntry> none;
  CHECK(make_tensor_file_header({}, none) == with_length(4088, "{}" + std::string(4086, ' ')));
}

TEST_CASE("tensor file: data begin at a multiple of the alignment, however long the header") {
  for (size_t name : {3990, 4020, 4021, 4022, 4023, 4024, 4025, 4030, 8120}) {
    std::vector<TensorEntry> entries = {{.name = std::string(name, 'n'), .dtype = DType::u8, .sizes = {1}}};
    std::string file = make_tensor_file_header({}, entries) + "d";
    TensorFileHeader header = parsed(file);
    CHECK(header.data_begin % tensor_file_alignment == 0);
    CHECK(header.data_begin < name + 4096 + 100);
    CHECK(header.entries[0].name == entries[0].name);
  }
}

TEST_CASE("tensor file: any order in the header and any alignment of the data are read") {
  TensorFileHeader header = parsed(file_of(small_header, 10));
  CHECK(header.data_begin == 8 + std::strlen(small_header));
  REQUIRE(header.entries.size() == 2);
  CHECK(header.entries[0].name == "a");
  CHECK(header.entries[1].name == "b");
  CHECK(header.entries[1].offset == 6);
  CHECK(parsed(file_of("{}")).entries.empty());
  CHECK(parsed(file_of("{}  \n ")).entries.empty());
}

TEST_CASE("tensor file: tensors without elements stand anywhere between others") {
  TensorFileHeader header = parsed(file_of(
      R"({"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"z":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]},)"
      R"("y":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"c":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
      8));
  CHECK(well_formed(header, header.data_begin + 8));
  CHECK(header.entries[0].name == "y");
  CHECK(header.entries[2].name == "z");
}

TEST_CASE("tensor file: tensors and metadata are found by name") {
  TensorFileHeader header = parsed(file_of(small_header, 10));
  for (const TensorEntry& entry : header.entries) CHECK(header.find(entry.name) == &entry);
  CHECK(header.find("c") == nullptr);
  CHECK(header.find("") == nullptr);
  CHECK(header.find("__metadata__") == nullptr);
  REQUIRE(header.metadata_value("k") != nullptr);
  CHECK(*header.metadata_value("k") == "v");
  CHECK(header.metadata_value("v") == nullptr);
  CHECK(TensorFileHeader{}.find("a") == nullptr);
}

TEST_CASE("tensor file: three thousand tensors in any order are all found") {
  std::vector<TensorEntry> entries;
  for (int i = 0; i < 3000; i++) {
    entries.push_back({.name = "blocks." + std::to_string(i), .dtype = DType::u8, .sizes = {i % 3}});
  }
  std::shuffle(entries.begin(), entries.end(), std::mt19937(1));
  std::string file = make_tensor_file_header({}, entries) + std::string(3000, 'd');
  TensorFileHeader header = parsed(file);
  CHECK(header.entries.size() == 3000);
  CHECK(well_formed(header, file.size()));
}

TEST_CASE("tensor file: a header of a wrong length is refused") {
  CHECK(refusal("") == "f: has 0 bytes, too few for a tensor file; it is truncated or another kind of file");
  CHECK(refusal("1234567").starts_with("f: has 7 bytes, too few"));
  for (uint64_t length :
       {uint64_t{0}, tensor_file_max_header + 1, uint64_t{1} << 40, UINT64_MAX - 7, UINT64_MAX}) {
    CHECK(refusal(with_length(length, "{}")) ==
          "f: the header length at offset 0 is " + std::to_string(length) +
              ", not 1 to 100000000; the file is incomplete or of another kind");
  }
  CHECK(refusal(with_length(3, "{}")) ==
        "f: the header of 3 bytes goes beyond the end of the file at 10; the file is truncated or of another "
        "kind");
  CHECK(refusal(with_length(1, "{}")).starts_with("f: header: not valid JSON at byte 1: "));
  CHECK(refusal(std::string(4096, '\0')).starts_with("f: the header length at offset 0 is 0, "));
}

TEST_CASE("tensor file: a header that is not such an object is refused") {
  CHECK(refusal(file_of("[]")) ==
        "f: the header at offset 8 does not begin with '{'; this is no tensor file");
  CHECK(refusal(file_of(" {}")).find("does not begin with '{'") != std::string::npos);
  CHECK(refusal(file_of("{} {}")).starts_with("f: header: not valid JSON at byte 3: "));
  CHECK(refusal(file_of("{\"a\":1}")) ==
        "f: tensor \"a\": its description lacks dtype, shape or data_offsets");
  CHECK(refusal(file_of(R"({"__metadata__":[]})")) == "f: __metadata__ is not an object");
  CHECK(refusal(file_of(R"({"__metadata__":{"k":1}})")) == "f: __metadata__ \"k\" is not a string");
  CHECK(refusal(file_of(R"({"__metadata__":{"k":null}})")) == "f: __metadata__ \"k\" is not a string");
  CHECK(refusal(file_of(R"({"__metadata__":{"k":"1","k":"2"}})")) ==
        "f: header: the key \"k\" stands twice in a JSON object");
  std::string tensor = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  CHECK(refusal(file_of("{\"a\":" + tensor + ",\"a\":" + tensor + "}")) ==
        "f: header: the key \"a\" stands twice in a JSON object");
  CHECK(refusal(file_of("{\"a\\u001b[31m\\n\":0}")).starts_with("f: tensor \"a\\x1b[31m\\x0a\": "));
}

TEST_CASE("tensor file: a wrong description of a tensor is refused, and says of which") {
  CHECK(refusal_of_entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8]})").empty());
  const std::string lacks = "f: tensor \"a\": its description lacks dtype, shape or data_offsets";
  CHECK(refusal_of_entry(R"({"shape":[8],"data_offsets":[0,8]})") == lacks);
  CHECK(refusal_of_entry(R"({"dtype":"U8","data_offsets":[0,8]})") == lacks);
  CHECK(refusal_of_entry(R"({"dtype":"U8","shape":[8]})") == lacks);
  CHECK(refusal_of_entry(R"([])") == lacks);
  CHECK(refusal_of_entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1})") ==
        "f: tensor \"a\": its description has more than dtype, shape and data_offsets");
  CHECK(refusal_of_entry(R"({"dtype":1,"shape":[8],"data_offsets":[0,8]})") ==
        "f: tensor \"a\": its dtype is not a string");
  for (const char* dtype : {"F8_E4M3", "F64", "I64", "BOOL", "f32", "", "C64"}) {
    CHECK(refusal_of_entry("{\"dtype\":\"" + std::string(dtype) + R"(","shape":[8],"data_offsets":[0,8]})") ==
          "f: tensor \"a\": dtype " + std::string(dtype) + " is not supported");
  }
}

TEST_CASE("tensor file: sizes and offsets are whole numbers that fit the type, or refused") {
  auto shape = [](const std::string& text) {
    return refusal_of_entry("{\"dtype\":\"U8\",\"shape\":" + text + ",\"data_offsets\":[0,8]}");
  };
  auto offsets = [](const std::string& text) {
    return refusal_of_entry("{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":" + text + "}");
  };
  CHECK(shape("8") == "f: tensor \"a\": its shape is not an array");
  for (const char* text : {"[-8]", "[8.0]", "[8.5]", "[\"8\"]", "[null]", "[[8]]", "[9223372036854775808]",
                           "[18446744073709551616]", "[2,4,-1]", "[true]"}) {
    CHECK(shape(text) ==
          "f: tensor \"a\": its shape has an element that is no whole number from 0 to 2^63 - 1");
  }
  CHECK(shape("[7]") == "f: tensor \"a\": its data_offsets span 8 bytes, but its shape and dtype U8 need 7");
  CHECK(shape("[0]").find("need 0") != std::string::npos);
  CHECK(shape("[]").find("need 1") != std::string::npos);
  CHECK(shape("[4294967296,4294967304]") == "f: tensor \"a\": the product of sizes overflows");
  CHECK(shape("[9223372036854775807,2]") == "f: tensor \"a\": the product of sizes overflows");
  CHECK(shape("[2,2,2]").empty());
  CHECK(offsets("0").starts_with("f: tensor \"a\": its data_offsets is not an array"));
  for (const char* text : {"[]", "[0]", "[0,8,8]", "[8,0]"}) {
    CHECK(offsets(text) == "f: tensor \"a\": its data_offsets are not a begin and an end");
  }
  CHECK(offsets("[-1,7]").find("no whole number") != std::string::npos);
  CHECK(offsets("[0,8.0]").find("no whole number") != std::string::npos);
  CHECK(offsets("[9223372036854775800,9223372036854775807]").find("span 7 bytes") != std::string::npos);
  CHECK(refusal_of_entry(
            R"({"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,9223372036854775804]})") ==
        "f: tensor \"a\": the product of sizes overflows");
}

TEST_CASE("tensor file: tensors must cover the data exactly, without overlap or gap") {
  auto two = [](const std::string& a, const std::string& b, size_t data) {
    return refusal(file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + a +
                               "},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + b + "}}",
                           data));
  };
  CHECK(two("[0,4]", "[4,8]", 8).empty());
  CHECK(two("[4,8]", "[0,4]", 8).empty());
  CHECK(two("[0,4]", "[3,7]", 7) ==
        "f: tensor \"b\": begins at byte 3 of the data instead of 4, where what stands before it ends: they "
        "overlap");
  CHECK(two("[0,4]", "[0,4]", 4).find("they overlap") != std::string::npos);
  CHECK(two("[0,4]", "[5,9]", 9) ==
        "f: tensor \"b\": begins at byte 5 of the data instead of 4, where what stands before it ends: there "
        "is a gap");
  CHECK(two("[1,5]", "[5,9]", 9).starts_with("f: tensor \"a\": begins at byte 1 of the data instead of 0"));
  CHECK(two("[0,4]", "[4,8]", 9) == "f: has 1 bytes behind the last tensor that belong to none");
  CHECK(
      two("[0,4]", "[4,8]", 7) ==
      "f: tensor \"b\": ends at byte 8 of the data, but the file has only 7; it is truncated, get it again");
  CHECK(two("[0,4]", "[9223372036854775803,9223372036854775807]", 8).find("truncated") != std::string::npos);
  CHECK(refusal(file_of("{}", 1)) == "f: has 1 bytes behind the last tensor that belong to none");
}

TEST_CASE("tensor file: every cut is refused") {
  std::string file = file_of(small_header, 10);
  REQUIRE(refusal(file).empty());
  for (size_t length = 0; length < file.size(); length++) {
    std::string message = refusal(file.substr(0, length));
    CAPTURE(length);
    REQUIRE(message.starts_with("f: "));
    REQUIRE(message.find('\n') == std::string::npos);
  }
}

// A container cannot know which names are right: a flip inside a name, in metadata, or from I8 to U8 gives
// another valid file. All others must be noticed or change nothing.
TEST_CASE("tensor file: every flipped byte is refused, or the file is well-formed and only words differ") {
  std::string file = file_of(small_header, 10);
  TensorFileHeader original = parsed(file);
  int refused = 0, same = 0, reworded = 0;
  for (size_t i = 0; i < file.size(); i++) {
    for (int flip = 1; flip < 256; flip++) {
      CAPTURE(i);
      CAPTURE(flip);
      std::string flipped = file;
      flipped[i] = static_cast<char>(flipped[i] ^ flip);
      std::string message = refusal(flipped);
      if (!message.empty()) {
        REQUIRE(message.starts_with("f: "));
        REQUIRE(message.find('\n') == std::string::npos);
        refused++;
        continue;
      }
      TensorFileHeader header = parsed(flipped);
      REQUIRE(well_formed(header, file.size()));
      if (equal(header, original)) {
        same++;
        REQUIRE(i >= original.data_begin);
        continue;
      }
      reworded++;
      REQUIRE(header.entries.size() == 2);
      REQUIRE(header.metadata.size() == 1);
      for (size_t k = 0; k < 2; k++) {
        REQUIRE(header.entries[k].sizes == original.entries[k].sizes);
        REQUIRE(header.entries[k].offset == original.entries[k].offset);
        REQUIRE(header.entries[k].bytes == original.entries[k].bytes);
      }
    }
  }
  CHECK(same == 10 * 255);
  CHECK(refused > 200 * 20);
  CHECK(reworded > 0);
  CHECK(reworded < 1000);
}

TEST_CASE("tensor file: a file that was reserved and never finished is refused") {
  TemporaryDirectory directory;
  std::vector<TensorEntry> entries = sample_entries();
  std::string header = make_tensor_file_header({}, entries);
  OutputFile output(directory / "model", header.size() + sample_data);
  output.write_at(header.size(), bytes_of(std::string(sample_data, 'd')));
  std::string partial = std::filesystem::directory_iterator(directory / "")->path().string();
  CHECK(error_of([&] {
          parse_tensor_file(MappedFile::open(partial).bytes(), "f");
        }).starts_with("f: the header length at offset 0 is 0, "));
  output.write_at(0, bytes_of(header));
  output.commit();
  CHECK(well_formed(parse_tensor_file(MappedFile::open(directory / "model").bytes(), "f"),
                    header.size() + sample_data));
}

TEST_CASE("tensor file: a sparse file of 2^40 bytes costs nothing") {
  TemporaryDirectory directory;
  std::string path = directory / "sparse";
  write_file(path, with_length(2, "{}"));
  std::filesystem::resize_file(path, uint64_t{1} << 40);
  MappedFile file = MappedFile::open(path);
  CHECK(error_of([&] { parse_tensor_file(file.bytes(), "f"); }) ==
        "f: has 1099511627766 bytes behind the last tensor that belong to none");
}

TEST_CASE("tensor file: what could not be read again is not written") {
  auto refused = [](const Metadata& metadata, std::vector<TensorEntry> entries) {
    return error_of([&] { make_tensor_file_header(metadata, entries); });
  };
  TensorEntry a = {.name = "a", .dtype = DType::u8, .sizes = {1}};
  auto named = [&](const std::string& name) {
    return TensorEntry{.name = name, .dtype = DType::u8, .sizes = {1}};
  };
  CHECK(refused({}, {a}).empty());
  CHECK(refused({}, {a, a}) == "tensor file header: the key \"a\" stands twice in a JSON object");
  CHECK(refused({{"k", ""}, {"k", ""}}, {a}) ==
        "tensor file header: the key \"k\" stands twice in a JSON object");
  CHECK(refused({}, {named("a\xff")}).starts_with("tensor \"a\xff\": cannot be written, "));
  CHECK(refused({}, {named("__metadata__")}).starts_with("tensor \"__metadata__\": cannot be written, "));
  CHECK(refused({{"k", "v"}}, {named("__metadata__")}).find("stands twice") != std::string::npos);
  CHECK(refused({}, {{.name = "a", .dtype = DType::f32, .sizes = {-1}}}) == "tensor file: negative size");
  CHECK(refused({}, {{.name = "a", .dtype = DType::f32, .sizes = {INT64_MAX, 2}}}) ==
        "tensor file: the product of sizes overflows");
  CHECK(refused({{"k", std::string(tensor_file_max_header, 'x')}}, {a})
            .starts_with("a tensor file of 1 tensors would"));
}

}  // namespace rwkv::test

TEST_SUITE_END();
