#include "model/checkpoint/pth_writer.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "core/checked.h"
#include "core/crc32.h"
#include "core/error.h"
#include "core/output_file.h"

namespace rwkv {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t storage_alignment = 64;
constexpr uint64_t local_header_size = 30;
constexpr uint64_t most_bytes = std::numeric_limits<uint32_t>::max();  // beyond, zip needs other headers

template <class Integer>
std::string le(Integer value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

// --- The pickle, protocol 2 ---

std::string pickled(std::string_view text) {
  return "X" + le(static_cast<uint32_t>(text.size())) + std::string(text);
}

// Four bytes with a sign, or a long of eight.
std::string pickled(int64_t number) {
  if (std::in_range<int32_t>(number)) return "J" + le(static_cast<int32_t>(number));
  return "\x8a\x08" + le(number);
}

std::string pickled(std::span<const int64_t> numbers) {
  std::string text = "(";
  for (int64_t number : numbers) text += pickled(number);
  return text + "t";
}

std::vector<int64_t> dense_strides(std::span<const int64_t> sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return strides;
}

// torch._utils._rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks), where the storage
// is the persistent id ('storage', class, key, device, elements).
std::string pickled(const PthTensor& tensor, size_t key) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(("                                               //
         + pickled("storage") + "ctorch\nFloatStorage\n" + pickled(std::to_string(key))        //
         + pickled("cpu") + pickled(static_cast<int64_t>(tensor.values.size())) + "tQ"         //
         + pickled(int64_t{0}) + pickled(tensor.sizes) + pickled(dense_strides(tensor.sizes))  //
         + "\x89" + "ccollections\nOrderedDict\n)R" + "tR";
}

std::string pickled(const std::vector<PthTensor>& tensors, PthRoot root) {
  std::string text = "\x80\x02";
  text += root == PthRoot::list ? "](" : "}(";
  for (size_t i = 0; i < tensors.size(); i++) {
    if (root == PthRoot::dict) text += pickled(tensors[i].name);
    text += pickled(tensors[i], i);
  }
  return text + (root == PthRoot::list ? "e." : "u.");
}

// --- The archive ---

struct Record {
  std::string name;
  std::span<const std::byte> bytes;
};

// What the local header and the directory say alike: version, flags, method, time, checksum, sizes, name.
std::string description(const Record& record, uint16_t extra) {
  auto size = static_cast<uint32_t>(record.bytes.size());
  return le(uint16_t{0}) + le(uint16_t{0}) + le(uint16_t{0}) + le(uint32_t{0}) + le(crc32(record.bytes)) +
         le(size) + le(size) + le(static_cast<uint16_t>(record.name.size())) + le(extra);
}

// An extra field fills up what is missing to the alignment, as PyTorch does it.
std::string local_header(const Record& record, uint64_t at) {
  uint64_t begin = at + local_header_size + record.name.size() + 4;
  uint64_t padding = (storage_alignment - begin % storage_alignment) % storage_alignment;
  std::string extra = "FB" + le(static_cast<uint16_t>(padding)) + std::string(padding, 'Z');
  return "PK\x03\x04" + description(record, static_cast<uint16_t>(extra.size())) + record.name + extra;
}

std::string directory_entry(const Record& record, uint64_t at) {
  // No comment, first disk, attributes.
  return "PK\x01\x02" + le(uint16_t{0}) + description(record, 0) + std::string(10, '\0') +
         le(static_cast<uint32_t>(at)) + record.name;
}

void write_archive(OutputFile& out, const std::vector<Record>& records) {
  auto write = [&](std::string_view text) { out.write(std::as_bytes(std::span(text))); };
  std::string directory;
  for (const Record& record : records) {
    directory += directory_entry(record, out.position());
    write(local_header(record, out.position()));
    out.write(record.bytes);
  }
  auto begin = static_cast<uint32_t>(out.position());
  auto count = static_cast<uint16_t>(records.size());
  write(directory);
  write("PK\x05\x06" + le(uint32_t{0}) + le(count) + le(count) + le(static_cast<uint32_t>(directory.size())) +
        le(begin) + le(uint16_t{0}));
}

void check_size(const std::string& path, const std::vector<Record>& records) {
  uint64_t bytes = 0;
  for (const Record& r : records)
    bytes = checked_add(bytes, r.bytes.size() + 2 * (r.name.size() + local_header_size + storage_alignment),
                        "archive");
  if (bytes > most_bytes || records.size() > std::numeric_limits<uint16_t>::max()) {
    throw Error(fmt::format("{}: {} tensors of {} bytes are more than is written into a .pth", path,
                            records.size(), bytes));
  }
}

}  // namespace

void write_pth(const std::string& path, const std::vector<PthTensor>& tensors, PthRoot root) {
  std::string pickle = pickled(tensors, root);
  auto text = [](std::string_view bytes) { return std::as_bytes(std::span(bytes)); };
  std::vector<Record> records = {{"archive/data.pkl", text(pickle)}, {"archive/byteorder", text("little")}};
  for (size_t i = 0; i < tensors.size(); i++) {
    records.push_back({fmt::format("archive/data/{}", i), std::as_bytes(tensors[i].values)});
  }
  records.push_back({"archive/version", text("3\n")});
  check_size(path, records);
  OutputFile out(path);
  write_archive(out, records);
  out.commit();
}

}  // namespace rwkv
