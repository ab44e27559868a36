#include "core/tensor_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/checked.h"
#include "core/error.h"
#include "core/json.h"

namespace rwkv {
namespace {

constexpr const char* metadata_key = "__metadata__";
constexpr uint64_t length_field = 8;
static_assert(std::endian::native == std::endian::little);

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr std::array<DTypeName, 6> dtype_names = {{{DType::f32, "F32"},
                                                   {DType::f16, "F16"},
                                                   {DType::bf16, "BF16"},
                                                   {DType::i8, "I8"},
                                                   {DType::u8, "U8"},
                                                   {DType::i32, "I32"}}};

/// `PATH: tensor NAME: ` for messages.
std::string subject(const std::string& path, std::string_view name) {
  return fmt::format("{}: tensor \"{}\"", path, printable(name));
}

DType parse_dtype(const Json& json, const std::string& what) {
  if (json.string() == nullptr) throw Error(what + ": its dtype is not a string");
  for (const auto& [dtype, name] : dtype_names) {
    if (name == *json.string()) return dtype;
  }
  throw Error(fmt::format("{}: dtype {} is not supported", what, printable(*json.string())));
}

/// An array of whole numbers that fit int64_t.
std::vector<int64_t> parse_numbers(const Json& json, const std::string& what, const char* member) {
  if (json.array() == nullptr) throw Error(fmt::format("{}: its {} is not an array", what, member));
  std::vector<int64_t> numbers;
  for (const Json& element : *json.array()) {
    const uint64_t* number = element.unsigned_number();
    if (number == nullptr || *number > static_cast<uint64_t>(INT64_MAX)) {
      throw Error(
          fmt::format("{}: its {} has an element that is no whole number from 0 to 2^63 - 1", what, member));
    }
    numbers.push_back(static_cast<int64_t>(*number));
  }
  return numbers;
}

TensorEntry parse_entry(const std::string& name, const Json& json, const std::string& path) {
  std::string what = subject(path, name);
  const Json* dtype = json.find("dtype");
  const Json* shape = json.find("shape");
  const Json* offsets = json.find("data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr) {
    throw Error(what + ": its description lacks dtype, shape or data_offsets");
  }
  if (json.object()->size() != 3)
    throw Error(what + ": its description has more than dtype, shape and data_offsets");
  TensorEntry entry{
      .name = name, .dtype = parse_dtype(*dtype, what), .sizes = parse_numbers(*shape, what, "shape")};
  std::vector<int64_t> range = parse_numbers(*offsets, what, "data_offsets");
  if (range.size() != 2 || range[0] > range[1]) {
    throw Error(what + ": its data_offsets are not a begin and an end");
  }
  entry.offset = static_cast<uint64_t>(range[0]);
  entry.bytes = static_cast<uint64_t>(range[1] - range[0]);
  uint64_t expected =
      checked_mul(checked_product(entry.sizes, what.c_str()), size_of(entry.dtype), what.c_str());
  if (entry.bytes != expected) {
    throw Error(fmt::format("{}: its data_offsets span {} bytes, but its shape and dtype {} need {}", what,
                            entry.bytes, *dtype->string(), expected));
  }
  return entry;
}

Metadata parse_metadata(const Json& json, const std::string& path) {
  if (json.object() == nullptr) throw Error(fmt::format("{}: {} is not an object", path, metadata_key));
  Metadata metadata;
  for (const auto& [key, value] : *json.object()) {
    if (value.string() == nullptr) {
      throw Error(fmt::format("{}: {} \"{}\" is not a string", path, metadata_key, printable(key)));
    }
    metadata.emplace_back(key, *value.string());
  }
  return metadata;
}

/// The JSON text behind the length field.
std::string_view header_text(std::span<const std::byte> file, const std::string& path) {
  if (file.size() < length_field) {
    throw Error(
        fmt::format("{}: has {} bytes, too few for a tensor file; it is truncated or another kind of file",
                    path, file.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), length_field);
  if (length == 0 || length > tensor_file_max_header) {
    throw Error(
        fmt::format("{}: the header length at offset 0 is {}, not 1 to {}; the file is incomplete or of "
                    "another kind",
                    path, length, tensor_file_max_header));
  }
  if (!range_fits(length_field, length, file.size())) {
    throw Error(fmt::format(
        "{}: the header of {} bytes goes beyond the end of the file at {}; the file is truncated or "
        "of another kind",
        path, length, file.size()));
  }
  std::string_view text(reinterpret_cast<const char*>(file.data()) + length_field, length);
  if (text.front() != '{') {
    throw Error(fmt::format("{}: the header at offset {} does not begin with '{{'; this is no tensor file",
                            path, length_field));
  }
  return text;
}

/// Sorts by offset, then checks that nothing overlaps, nothing is left out and all ends where the file does.
void require_contiguous(std::vector<TensorEntry>& entries, uint64_t data_size, const std::string& path) {
  std::ranges::stable_sort(entries, {}, [](const TensorEntry& e) { return std::pair(e.offset, e.bytes); });
  uint64_t end = 0;
  for (const TensorEntry& entry : entries) {
    if (!range_fits(entry.offset, entry.bytes, data_size)) {
      throw Error(fmt::format(
          "{}: ends at byte {} of the data, but the file has only {}; it is truncated, get it again",
          subject(path, entry.name), entry.offset + entry.bytes, data_size));
    }
    if (entry.offset != end) {
      throw Error(
          fmt::format("{}: begins at byte {} of the data instead of {}, where what stands before it ends: {}",
                      subject(path, entry.name), entry.offset, end,
                      entry.offset < end ? "they overlap" : "there is a gap"));
    }
    end += entry.bytes;
  }
  if (end != data_size) {
    throw Error(
        fmt::format("{}: has {} bytes behind the last tensor that belong to none", path, data_size - end));
  }
}

std::vector<uint32_t> sorted_by_name(const std::vector<TensorEntry>& entries) {
  std::vector<uint32_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, {}, [&](uint32_t i) -> std::string_view { return entries[i].name; });
  return order;
}

std::string quoted(const std::string& text) { return to_string(Json{text}); }

/// Offsets and byte counts are computed on the way.
std::string make_header_text(const Metadata& metadata, std::vector<TensorEntry>& entries) {
  constexpr const char* what = "tensor file";
  std::string text = "{";
  if (!metadata.empty()) {
    Json::Object members;
    for (const auto& [key, value] : metadata) members.push_back({key, Json{value}});
    text += fmt::format(R"("{}":{})", metadata_key, to_string(Json{std::move(members)}));
  }
  uint64_t offset = 0;
  for (TensorEntry& entry : entries) {
    entry.offset = offset;
    entry.bytes = checked_mul(checked_product(entry.sizes, what), size_of(entry.dtype), what);
    offset = checked_add(offset, entry.bytes, what);
    const auto* dtype = std::ranges::find(dtype_names, entry.dtype, &DTypeName::dtype);
    std::string shape;
    for (int64_t size : entry.sizes) {
      if (!shape.empty()) shape += ',';
      shape += std::to_string(size);
    }
    if (text.size() > 1) text += ',';
    text += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(entry.name),
                        dtype->name, shape, entry.offset, offset);
  }
  return text + "}";
}

/// Names that stand twice, or that JSON cannot hold, must not be found out only when the file is read.
void require_readable(const std::string& text, const std::vector<TensorEntry>& entries) {
  Json header = parse_json(text, "tensor file header");
  size_t skipped = header.object()->size() - entries.size();  // the metadata come first, if there are any
  for (size_t i = 0; i < entries.size(); i++) {
    const std::string& name = entries[i].name;
    if (name == metadata_key || name != (*header.object())[skipped + i].key) {
      throw Error(fmt::format("tensor \"{}\": cannot be written, for its name is reserved or not UTF-8",
                              printable(name)));
    }
  }
}

}  // namespace

const TensorEntry* TensorFileHeader::find(std::string_view name) const {
  auto name_of_index = [this](uint32_t i) -> std::string_view { return entries[i].name; };
  auto place = std::ranges::lower_bound(by_name, name, {}, name_of_index);
  return place != by_name.end() && entries[*place].name == name ? &entries[*place] : nullptr;
}

const std::string* TensorFileHeader::metadata_value(std::string_view key) const {
  auto place = std::ranges::find(metadata, key, &Metadata::value_type::first);
  return place != metadata.end() ? &place->second : nullptr;
}

TensorFileHeader parse_tensor_file(std::span<const std::byte> file, const std::string& path) {
  std::string_view text = header_text(file, path);
  Json json = parse_json(text, path + ": header");
  TensorFileHeader header;
  header.data_begin = length_field + text.size();
  for (const auto& [name, value] : *json.object()) {
    if (name == metadata_key) {
      header.metadata = parse_metadata(value, path);
    } else {
      header.entries.push_back(parse_entry(name, value, path));
    }
  }
  require_contiguous(header.entries, file.size() - header.data_begin, path);
  header.by_name = sorted_by_name(header.entries);
  return header;
}

std::string make_tensor_file_header(const Metadata& metadata, std::vector<TensorEntry>& entries) {
  std::string text = make_header_text(metadata, entries);
  auto end = static_cast<int64_t>(length_field + text.size());
  uint64_t padded = static_cast<uint64_t>(round_up(end, tensor_file_alignment)) - length_field;
  if (padded > tensor_file_max_header) {
    throw Error(
        fmt::format("a tensor file of {} tensors would need a header of {} bytes; at most {} are possible",
                    entries.size(), padded, tensor_file_max_header));
  }
  require_readable(text, entries);
  text.resize(padded, ' ');
  std::string header(length_field, '\0');
  std::memcpy(header.data(), &padded, length_field);
  return header + text;
}

}  // namespace rwkv
