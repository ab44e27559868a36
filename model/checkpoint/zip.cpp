#include "model/checkpoint/zip.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "core/checked.h"
#include "core/error.h"
#include "model/checkpoint/byte_reader.h"

namespace rwkv {
namespace {

constexpr uint32_t local_signature = 0x04034b50;
constexpr uint32_t central_signature = 0x02014b50;
constexpr uint32_t descriptor_signature = 0x08074b50;
constexpr uint32_t end_signature = 0x06054b50;
constexpr uint32_t zip64_end_signature = 0x06064b50;
constexpr uint32_t zip64_locator_signature = 0x07064b50;

constexpr uint64_t local_header_size = 30;
constexpr uint64_t central_header_size = 46;
constexpr uint64_t end_size = 22;
constexpr uint64_t zip64_end_size = 56;
constexpr uint64_t zip64_locator_size = 20;

constexpr uint16_t flag_encrypted = 0x1;
constexpr uint16_t flag_level = 0x6;  // how hard a compressor tried
constexpr uint16_t flag_descriptor = 0x8;
constexpr uint16_t flag_utf8 = 0x800;

constexpr uint64_t max16 = 0xffff;      // "see the zip64 record", in a 16-bit field
constexpr uint64_t max32 = 0xffffffff;  // the same in a 32-bit field
constexpr uint64_t max_comment = 0xffff;
constexpr size_t max_name = 4096;

/// Where the central directory lies.
struct Directory {
  uint64_t offset, size, count;
};

/// One record as the central directory describes it, and where its payload was found.
struct Record {
  std::string_view name;
  uint16_t flags, method;
  uint32_t crc;
  uint64_t compressed, size, local;
  uint64_t payload = 0;
};

class Archive {
 public:
  Archive(std::span<const std::byte> file, const std::string& path) : file_(file), path_(path) {}

  std::vector<ZipEntry> read() {
    Directory directory = find_directory();
    read_records(directory);
    std::unordered_set<std::string_view> names;
    for (Record& record : records_) {
      check_record(record);
      if (!names.insert(record.name).second) fail(record, "stands twice in the archive");
      check_local_header(record, directory);
    }
    check_layout(directory);
    std::vector<ZipEntry> entries;
    for (const Record& r : records_) {
      entries.push_back({std::string(r.name), r.payload, r.compressed, r.crc, r.method});
    }
    return entries;
  }

 private:
  [[noreturn]] void fail(std::string_view what) const { throw Error(fmt::format("{}: {}", path_, what)); }
  [[noreturn]] void fail(const Record& record, std::string_view what) const {
    throw Error(fmt::format("{}: record '{}' {}", path_, printable(record.name), what));
  }

  /// A reader of [offset, offset + size), which the caller has checked to lie inside the file.
  [[nodiscard]] ByteReader reader(uint64_t offset, uint64_t size) const {
    return {file_.subspan(offset, size), path_, offset};
  }

  [[nodiscard]] uint64_t find_end() const;
  [[nodiscard]] Directory find_directory() const;
  [[nodiscard]] Directory read_zip64_end(uint64_t locator) const;
  void read_records(const Directory& directory);
  void check_record(const Record& record) const;
  void check_local_header(Record& record, const Directory& directory) const;
  void check_layout(const Directory& directory) const;
  void check_between(const Record& record, uint64_t payload_end, uint64_t next) const;
  [[nodiscard]] std::optional<std::span<const std::byte>> zip64_field(const Record& record,
                                                                      std::span<const std::byte> extra,
                                                                      uint64_t offset) const;

  std::span<const std::byte> file_;
  const std::string& path_;
  std::vector<Record> records_;
};

/// The end record is the last thing in the file but for a comment, whose length it states.
uint64_t Archive::find_end() const {
  if (file_.size() >= end_size) {
    uint64_t last = file_.size() - end_size;
    for (uint64_t position = last; position + max_comment >= last; position--) {
      ByteReader r = reader(position, end_size);
      if (r.u32() == end_signature) {
        r.bytes(16);
        if (r.u16() == last - position) return position;
      }
      if (position == 0) break;
    }
  }
  fail("the end of the zip archive is missing: the file is cut off, copy or download it again");
}

Directory Archive::read_zip64_end(uint64_t locator) const {
  ByteReader l = reader(locator, zip64_locator_size);
  l.u32();
  uint32_t disk = l.u32();
  uint64_t offset = l.u64();
  if (disk != 0 || l.u32() != 1) fail("the zip archive is split over several disks");
  if (locator < zip64_end_size || offset != locator - zip64_end_size) {
    fail(fmt::format("the zip64 locator at byte {} does not point to the record before it", locator));
  }
  ByteReader r = reader(offset, zip64_end_size);
  if (r.u32() != zip64_end_signature || r.u64() != zip64_end_size - 12) {
    fail(fmt::format("there is no zip64 end record at byte {}", offset));
  }
  r.u32();  // versions
  uint32_t this_disk = r.u32(), directory_disk = r.u32();
  uint64_t count_here = r.u64(), count = r.u64();
  if (this_disk != 0 || directory_disk != 0 || count_here != count) {
    fail("the zip archive is split over several disks");
  }
  uint64_t size = r.u64();
  return {r.u64(), size, count};
}

Directory Archive::find_directory() const {
  uint64_t end = find_end();
  ByteReader r = reader(end, end_size);
  r.u32();
  uint16_t disk = r.u16(), directory_disk = r.u16(), count_here = r.u16(), count = r.u16();
  uint32_t size = r.u32(), offset = r.u32();
  if (disk != 0 || directory_disk != 0 || count_here != count) {
    fail("the zip archive is split over several disks");
  }
  Directory directory{offset, size, count};
  uint64_t directory_end = end;
  if (end >= zip64_locator_size && reader(end - zip64_locator_size, 4).u32() == zip64_locator_signature) {
    directory = read_zip64_end(end - zip64_locator_size);
    directory_end = end - zip64_locator_size - zip64_end_size;
    if ((count != max16 && count != directory.count) || (size != max32 && size != directory.size) ||
        (offset != max32 && offset != directory.offset)) {
      fail(fmt::format("the end record at byte {} and the zip64 end record disagree", end));
    }
  } else if (count == max16 || size == max32 || offset == max32) {
    fail(fmt::format("the end record at byte {} refers to a zip64 end record that is missing", end));
  }
  if (!range_fits(directory.offset, directory.size, directory_end) ||
      directory.offset + directory.size != directory_end) {
    fail(
        fmt::format("the central directory (byte {}, {} bytes) does not lie before its end record at byte {}",
                    directory.offset, directory.size, directory_end));
  }
  if (directory.count > directory.size / central_header_size) {
    fail(fmt::format("the central directory of {} bytes cannot hold {} records", directory.size,
                     directory.count));
  }
  return directory;
}

/// The body of the zip64 block of an extra field, when there is one.
std::optional<std::span<const std::byte>> Archive::zip64_field(const Record& record,
                                                               std::span<const std::byte> extra,
                                                               uint64_t offset) const {
  std::optional<std::span<const std::byte>> found;
  ByteReader r(extra, path_, offset);
  while (r.remaining() > 0) {
    uint64_t position = r.offset();
    uint16_t id = 0, size = 0;
    if (r.remaining() >= 4) {
      id = r.u16();
      size = r.u16();
    }
    if (id == 0 || size > r.remaining()) {
      fail(record, fmt::format("has a bad extra field at byte {}", position));
    }
    auto body = r.bytes(size);
    if (id != 1) continue;
    if (found) fail(record, "has two zip64 fields");
    found = body;
  }
  return found;
}

void Archive::read_records(const Directory& directory) {
  ByteReader r = reader(directory.offset, directory.size);
  for (uint64_t i = 0; i < directory.count; i++) {
    uint64_t position = r.offset();
    if (r.u32() != central_signature) {
      fail(fmt::format("there is no directory entry at byte {} (record {} of {})", position, i,
                       directory.count));
    }
    r.u32();  // versions
    Record record{};
    record.flags = r.u16();
    record.method = r.u16();
    r.u32();  // time and date
    record.crc = r.u32();
    record.compressed = r.u32();
    record.size = r.u32();
    uint16_t name_size = r.u16(), extra_size = r.u16(), comment_size = r.u16(), disk = r.u16();
    r.bytes(6);  // attributes
    record.local = r.u32();
    record.name = r.text(name_size);
    uint64_t extra_offset = r.offset();
    auto zip64 = zip64_field(record, r.bytes(extra_size), extra_offset);
    r.bytes(comment_size);
    if (disk != 0) fail(record, "lies on another disk");
    // The zip64 field holds exactly what the header could not.
    size_t wide =
        size_t{record.size == max32} + size_t{record.compressed == max32} + size_t{record.local == max32};
    if ((zip64 ? zip64->size() : 0) != wide * 8) fail(record, "has a zip64 field of the wrong size, or none");
    if (zip64) {
      ByteReader z(*zip64, path_, extra_offset);
      if (record.size == max32) record.size = z.u64();
      if (record.compressed == max32) record.compressed = z.u64();
      if (record.local == max32) record.local = z.u64();
    }
    records_.push_back(record);
  }
  if (r.remaining() > 0) {
    fail(fmt::format("{} bytes follow the last directory entry at byte {}", r.remaining(), r.offset()));
  }
}

void Archive::check_record(const Record& record) const {
  std::string_view name = record.name;
  if (name.empty() || name.size() > max_name) {
    fail(record, fmt::format("has a name of {} bytes", name.size()));
  }
  constexpr std::string_view bad("\0\\", 2);
  bool leads_out = fmt::format("/{}/", name).find("/../") != std::string::npos;
  if (name[0] == '/' || leads_out || name.find_first_of(bad) != std::string_view::npos) {
    fail(record, "has a name that leads out of the archive");
  }
  if ((record.flags & flag_encrypted) != 0) fail(record, "is encrypted");
  uint16_t known = flag_descriptor | flag_utf8 | (record.method != 0 ? flag_level : 0);
  if ((record.flags & ~known) != 0) {
    fail(record, fmt::format("has the unsupported flags {:#x}", record.flags));
  }
  if (record.method == 0 && record.compressed != record.size) {
    fail(record, fmt::format("is stored, yet takes {} bytes for {}", record.compressed, record.size));
  }
}

/// Sizes and checksum of a local header are those of the directory, or 0 when they follow the payload.
void Archive::check_local_header(Record& record, const Directory& directory) const {
  if (!range_fits(record.local, local_header_size, directory.offset)) {
    fail(record, fmt::format("begins at byte {}, which is beyond the records", record.local));
  }
  ByteReader r = reader(record.local, directory.offset - record.local);
  if (r.u32() != local_signature) fail(record, fmt::format("has no local header at byte {}", record.local));
  r.u16();  // version
  bool agrees = r.u16() == record.flags;
  agrees &= r.u16() == record.method;
  r.u32();  // time and date
  bool may_be_0 = (record.flags & flag_descriptor) != 0;
  auto matches = [may_be_0](uint64_t value, uint64_t central) {
    return value == central || (may_be_0 && value == 0);
  };
  agrees &= matches(r.u32(), record.crc);
  uint64_t compressed = r.u32(), size = r.u32();
  uint16_t name_size = r.u16(), extra_size = r.u16();
  if (name_size != record.name.size() || r.text(name_size) != record.name) {
    fail(record, fmt::format("has another name in its local header at byte {}", record.local));
  }
  if (extra_size > r.remaining()) fail(record, "has an extra field that reaches beyond the records");
  uint64_t extra_offset = r.offset();
  auto zip64 = zip64_field(record, r.bytes(extra_size), extra_offset);
  if (compressed == max32 && size == max32 && zip64 && zip64->size() >= 16) {
    ByteReader z(*zip64, path_, extra_offset);
    size = z.u64();
    compressed = z.u64();
  }
  if (!agrees || !matches(compressed, record.compressed) || !matches(size, record.size)) {
    fail(record, fmt::format("is described differently by its local header at byte {}", record.local));
  }
  record.payload = r.offset();
  if (record.compressed > r.remaining()) {
    fail(record, fmt::format("of {} bytes does not fit the file", record.compressed));
  }
}

/// A payload is followed by the next record, or by its own checksum and sizes first.
void Archive::check_between(const Record& record, uint64_t payload_end, uint64_t next) const {
  uint64_t size = next - payload_end;
  if (size == 0) return;
  ByteReader r = reader(payload_end, size);
  bool valid =
      (record.flags & flag_descriptor) != 0 && (size == 12 || size == 16 || size == 20 || size == 24);
  if (valid && (size == 16 || size == 24)) valid = r.u32() == descriptor_signature;
  valid = valid && r.u32() == record.crc;
  bool wide = size >= 20;
  for (uint64_t expected : {record.compressed, record.size}) {
    valid = valid && (wide ? r.u64() : r.u32()) == expected;
  }
  if (!valid) {
    fail(record, fmt::format("is followed by {} bytes at byte {} that are no record", size, payload_end));
  }
}

/// From the start of the file to the directory, every byte belongs to exactly one record.
void Archive::check_layout(const Directory& directory) const {
  std::vector<const Record*> order;
  for (const Record& record : records_) order.push_back(&record);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->local < b->local; });
  uint64_t first = order.empty() ? directory.offset : order[0]->local;
  if (first != 0) fail(fmt::format("{} bytes stand before the first record", first));
  for (size_t i = 0; i < order.size(); i++) {
    const Record& record = *order[i];
    uint64_t end = record.payload + record.compressed;
    uint64_t next = i + 1 < order.size() ? order[i + 1]->local : directory.offset;
    if (end > next) fail(record, fmt::format("overlaps what begins at byte {}", next));
    check_between(record, end, next);
  }
}

}  // namespace

std::vector<ZipEntry> read_zip(std::span<const std::byte> file, const std::string& path) {
  return Archive(file, path).read();
}

}  // namespace rwkv
