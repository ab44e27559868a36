#include "test/model/checkpoint/build.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "core/crc32.h"
#include "core/error.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

constexpr uint64_t max32 = 0xffffffff;

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

std::string numbers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (int64_t value : values) items.push_back(pickled(value));
  return pickled_tuple(items);
}

struct Placed {
  const ZipRecord& record;
  uint64_t local, size;
  uint32_t crc;
  [[nodiscard]] bool wide() const { return size >= max32 || local >= max32; }
  [[nodiscard]] uint16_t flags() const { return size == 0 ? 0x800 : 0x808; }
};

/// miniz leaves the compressed size of a local header's field at 0.
std::string zip64_extra(const Placed& p, bool is_local) {
  if (!p.wide()) return "";
  std::string body;
  if (p.size >= max32) body += le(p.size) + le(is_local ? uint64_t{0} : p.size);
  if (p.local >= max32) body += le(p.local);
  return le(uint16_t{1}) + le(static_cast<uint16_t>(body.size())) + body;
}

std::string local_header(const Placed& p) {
  std::string extra = zip64_extra(p, true);
  uint64_t begin = p.local + 30 + p.record.name.size() + extra.size() + 4;
  uint64_t padding = (64 - begin % 64) % 64;
  extra += "FB" + le(static_cast<uint16_t>(padding)) + std::string(padding, 'Z');
  return "PK\x03\x04" + le(uint16_t{0}) + le(p.flags()) + std::string(18, '\0') +
         le(static_cast<uint16_t>(p.record.name.size())) + le(static_cast<uint16_t>(extra.size())) +
         p.record.name + extra;
}

std::string descriptor(const Placed& p) {
  if (p.size == 0) return "";
  std::string sizes = p.wide() ? le(p.size) + le(p.size)
                               : le(static_cast<uint32_t>(p.size)) + le(static_cast<uint32_t>(p.size));
  return "PK\x07\x08" + le(p.crc) + sizes;
}

std::string central_header(const Placed& p) {
  std::string extra = zip64_extra(p, false);
  auto size = static_cast<uint32_t>(std::min(p.size, max32));
  return "PK\x01\x02" + le(uint32_t{0}) + le(p.flags()) + std::string(6, '\0') + le(p.crc) + le(size) +
         le(size) + le(static_cast<uint16_t>(p.record.name.size())) +
         le(static_cast<uint16_t>(extra.size())) + std::string(10, '\0') +
         le(static_cast<uint32_t>(std::min(p.local, max32))) + p.record.name + extra;
}

}  // namespace

std::string pickled(std::string_view text) {
  return "X" + le(static_cast<uint32_t>(text.size())) + std::string(text);
}
std::string pickled(int64_t number) { return "\x8a\x08" + le(number); }
std::string pickled_global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
std::string pickled_tuple(const std::vector<std::string>& items) { return "(" + joined(items) + "t"; }
std::string pickled_list(const std::vector<std::string>& items) { return "](" + joined(items) + "e"; }
std::string pickled_call(const std::string& function, const std::vector<std::string>& arguments) {
  return function + pickled_tuple(arguments) + "R";
}
std::string pickled_dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string all = "}(";
  for (const auto& [key, value] : entries) all += pickled(key) + value;
  return all + "u";
}
std::string pickle_of(const std::string& value) { return "\x80\x02" + value + "."; }

std::string pickled_storage(const PickledTensor& spec) {
  return pickled_tuple({pickled("storage"), pickled_global("torch", spec.storage), pickled(spec.key),
                        pickled("cpu"), pickled(spec.elements)}) +
         "Q";
}
std::string pickled_tensor(const PickledTensor& spec) {
  return pickled_call(
      pickled_global("torch._utils", "_rebuild_tensor_v2"),
      {pickled_storage(spec), pickled(spec.offset), numbers(spec.sizes), numbers(spec.strides), "\x89",
       pickled_call(pickled_global("collections", "OrderedDict"), {})});
}

std::string Zip::bytes() const {
  std::string all;
  for (const auto& segment : segments) all += segment.second;
  return all;
}

void Zip::write(const std::string& path) const {
  int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) throw Error("cannot write " + path);
  for (const auto& [offset, bytes] : segments) {
    if (pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(bytes.size())) {
      throw Error("cannot write " + path);
    }
  }
  close(file);
}

Zip make_zip(const std::vector<ZipRecord>& records) {
  Zip zip;
  uint64_t position = 0;
  auto add = [&](const std::string& bytes) {
    zip.segments.emplace_back(position, bytes);
    position += bytes.size();
  };
  std::vector<Placed> placed;
  for (const ZipRecord& record : records) {
    placed.push_back(
        {record, position, record.payload.size() + record.hole, crc32(as_bytes(record.payload))});
    zip.locals.push_back(position);
    add(local_header(placed.back()));
    zip.payloads.push_back(position);
    add(record.payload);
    position += record.hole;
    add(descriptor(placed.back()));
  }
  zip.directory = position;
  for (const Placed& p : placed) {
    zip.centrals.push_back(position);
    add(central_header(p));
  }
  uint64_t size = position - zip.directory, count = records.size();
  auto count16 = static_cast<uint16_t>(std::min<uint64_t>(count, 0xffff));
  zip.zip64_end = position;
  add("PK\x06\x06" + le(uint64_t{44}) + le(uint32_t{0x2d031e}) + le(uint64_t{0}) + le(count) + le(count) +
      le(size) + le(zip.directory));
  zip.locator = position;
  add("PK\x06\x07" + le(uint32_t{0}) + le(zip.zip64_end) + le(uint32_t{1}));
  zip.end = position;
  add("PK\x05\x06" + le(uint32_t{0}) + le(count16) + le(count16) +
      le(static_cast<uint32_t>(std::min(size, max32))) +
      le(static_cast<uint32_t>(std::min(zip.directory, max32))) + le(uint16_t{0}));
  return zip;
}

std::vector<ZipRecord> checkpoint_records(const std::string& pickle, const std::vector<std::string>& storages,
                                          const std::string& root) {
  std::vector<ZipRecord> records = {{root + "/data.pkl", pickle}, {root + "/byteorder", "little"}};
  for (size_t i = 0; i < storages.size(); i++)
    records.push_back({root + "/data/" + std::to_string(i), storages[i]});
  records.push_back({root + "/version", "3\n"});
  return records;
}

std::string checkpoint_with(const std::string& value) {
  return make_zip(checkpoint_records(pickle_of(pickled_dict({{"x", value}})), {floats(6)})).bytes();
}

std::string floats(size_t count) {
  std::string bytes;
  for (size_t i = 0; i < count; i++) bytes += le(static_cast<float>(i));
  return bytes;
}

std::vector<Content> read_all(const std::string& path, const CheckpointOptions& options) {
  Checkpoint checkpoint = Checkpoint::open(path, options);
  checkpoint.check_all();
  std::vector<Content> contents;
  for (const SourceTensor& tensor : checkpoint.tensors()) {
    std::string elements(tensor.elements() * size_of(tensor.dtype), '\0');
    checkpoint.read(tensor, 0, tensor.elements(), reinterpret_cast<std::byte*>(elements.data()));
    contents.push_back({tensor.name, tensor.dtype, tensor.sizes, elements});
  }
  return contents;
}

std::string error_of_bytes(std::string_view bytes, const CheckpointOptions& options) {
  TemporaryDirectory directory;
  std::string path = directory / "file.pth";
  write_file(path, bytes);
  std::string error = error_of([&] { read_all(path, options); });
  if (!error.empty() && !error.starts_with(path + ": ")) return "no path: " + error;
  if (error.find('\n') != std::string::npos) return "more than one line: " + error;
  return error;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace rwkv::test
