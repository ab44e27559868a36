// The directory of zip archives: what PyTorch writes is read, every inconsistency is refused.
#include "model/checkpoint/zip.h"

#include <doctest/doctest.h>

#include <functional>

#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

// Offsets of fields in a local header, a directory entry, the end record, the zip64 end record and its
// locator.
constexpr uint64_t local_flags = 6, local_method = 8, local_crc = 14, local_compressed = 18, local_size = 22,
                   local_name_size = 26, local_extra_size = 28, local_name = 30;
constexpr uint64_t central_flags = 8, central_method = 10, central_crc = 16, central_compressed = 20,
                   central_size = 24, central_name_size = 28, central_extra_size = 30,
                   central_comment_size = 32, central_disk = 34, central_local = 42, central_name = 46;
constexpr uint64_t end_disk = 4, end_directory_disk = 6, end_count_here = 8, end_count = 10,
                   end_directory_size = 12, end_directory = 16, end_comment_size = 20;
constexpr uint64_t zip64_size = 4, zip64_disk = 16, zip64_directory_disk = 20, zip64_count_here = 24,
                   zip64_count = 32, zip64_directory_size = 40, zip64_directory = 48;
constexpr uint64_t locator_disk = 4, locator_offset = 8, locator_disks = 16;

const std::vector<ZipRecord> three = {{"a/one", "first payload"}, {"a/two", ""}, {"a/three", "third"}};

std::string error_of_zip(std::string_view bytes) {
  return error_of([&] { read_zip(as_bytes(bytes), "FILE"); });
}

/// The message for `three` after a change.
std::string error_after(const std::function<void(std::string&, const Zip&)>& change) {
  Zip zip = make_zip(three);
  std::string bytes = zip.bytes();
  change(bytes, zip);
  std::string error = error_of_zip(bytes);
  CHECK((error.empty() || error.starts_with("FILE: ")));
  return error;
}

/// The same archive without the zip64 records, as other writers make it.
std::string without_zip64(const Zip& zip) {
  std::string bytes = zip.bytes();
  return bytes.erase(zip.zip64_end, zip.end - zip.zip64_end);
}

/// A local header, directory entry and end record written field by field.
struct SimpleZip {
  std::string payload = "123456789";
  uint32_t crc = 0xcbf43926;
  uint16_t flags = 0, method = 0;
  uint32_t local_size = 9, local_compressed = 9, local_crc = 0xcbf43926;
  uint32_t size = 9, compressed = 9, local = 0;
  std::string local_extra = {}, extra = {}, before = {}, after = {}, tail = {}, name = "a/b";

  [[nodiscard]] std::string bytes() const {
    std::string bytes = before + "PK\x03\x04" + le(uint16_t{20}) + le(flags) + le(method) + le(uint32_t{0}) +
                        le(local_crc) + le(local_compressed) + le(local_size) +
                        le(static_cast<uint16_t>(name.size())) +
                        le(static_cast<uint16_t>(local_extra.size())) + name + local_extra + payload + after;
    std::string central = "PK\x01\x02" + le(uint32_t{0}) + le(flags) + le(method) + le(uint32_t{0}) +
                          le(crc) + le(compressed) + le(size) + le(static_cast<uint16_t>(name.size())) +
                          le(static_cast<uint16_t>(extra.size())) + std::string(10, '\0') + le(local) + name +
                          extra;
    central += tail;
    auto directory = static_cast<uint32_t>(bytes.size());
    return bytes + central + "PK\x05\x06" + le(uint32_t{0}) + le(uint16_t{1}) + le(uint16_t{1}) +
           le(static_cast<uint32_t>(central.size())) + le(directory) + le(uint16_t{0});
  }
};

std::string zip64_block(const std::string& body) {
  return le(uint16_t{1}) + le(static_cast<uint16_t>(body.size())) + body;
}

TEST_CASE("records are found in the order of the directory") {
  Zip zip = make_zip(three);
  std::string bytes = zip.bytes();
  auto entries = read_zip(as_bytes(bytes), "FILE");
  REQUIRE(entries.size() == 3);
  for (size_t i = 0; i < 3; i++) {
    CHECK(entries[i].name == three[i].name);
    CHECK(entries[i].size == three[i].payload.size());
    CHECK(entries[i].offset == zip.payloads[i]);
    CHECK(entries[i].offset % 64 == 0);
    CHECK(entries[i].method == 0);
  }
  CHECK(bytes.substr(entries[0].offset, entries[0].size) == "first payload");
  CHECK(read_zip(as_bytes(without_zip64(zip)), "FILE").size() == 3);
  CHECK(read_zip(as_bytes(make_zip({}).bytes()), "FILE").empty());
}

TEST_CASE("an archive of another writer, with and without what may follow a payload") {
  CHECK(error_of_zip(SimpleZip{}.bytes()).empty());
  for (uint32_t local : {0u, 9u}) {
    SimpleZip z{
        .flags = 8, .local_size = local, .local_compressed = local, .local_crc = local == 0 ? 0 : 0xcbf43926};
    std::string crc = le(z.crc), sizes = le(uint32_t{9}) + le(uint32_t{9}),
                wide = le(uint64_t{9}) + le(uint64_t{9});
    std::string signed_crc = "PK\x07\x08" + crc;
    for (const std::string& after :
         {std::string(), crc + sizes, signed_crc + sizes, crc + wide, signed_crc + wide}) {
      z.after = after;
      CHECK(error_of_zip(z.bytes()).empty());
      if (after.empty()) continue;
      z.after.back() = 1;
      CHECK(contains(error_of_zip(z.bytes()), "record 'a/b' is followed by"));
    }
  }
  SimpleZip zip64{.local_size = 0xffffffff, .local_compressed = 0xffffffff, .size = 0xffffffff};
  zip64.local_extra = zip64_block(le(uint64_t{9}) + le(uint64_t{9}));
  zip64.extra = zip64_block(le(uint64_t{9}));
  CHECK(error_of_zip(zip64.bytes()).empty());
}

TEST_CASE("a compressed record is listed with its method and its packed size") {
  SimpleZip z{.method = 8, .local_size = 1000, .size = 1000};
  z.flags = 2;
  std::string bytes = z.bytes();
  auto entries = read_zip(as_bytes(bytes), "FILE");
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].method == 8);
  CHECK(entries[0].size == 9);
}

TEST_CASE("a compressed checkpoint is refused, however large it would become") {
  SimpleZip bomb{.method = 8, .local_size = 0xfffffffe, .size = 0xfffffffe};
  bomb.name = "m/data.pkl";
  CHECK(contains(error_of_bytes(bomb.bytes()),
                 "record 'm/data.pkl' is compressed (method 8), which PyTorch never"));
}

TEST_CASE("zip64 fields hold exactly what the entry lacks") {
  std::string nine = le(uint64_t{9}), zero = le(uint64_t{0});
  std::string all = nine + nine + zero;
  std::string padded = std::string("FB\x01\0Z", 5) + zip64_block(nine);
  struct Case {
    uint32_t size, compressed, local;
    std::string extra;
    bool valid;
  };
  constexpr uint32_t wide = 0xffffffff;
  for (const Case& c : std::initializer_list<Case>{
           {wide, wide, wide, zip64_block(all), true},
           {9, 9, wide, zip64_block(zero), true},
           {9, wide, 0, padded, true},
           {wide, 9, 0, "", false},
           {wide, 9, 0, zip64_block(nine.substr(1)), false},
           {wide, 9, 0, zip64_block(nine + nine), false},
           {wide, 9, 0, zip64_block(nine) + zip64_block(nine), false},
           {wide, 9, 0, zip64_block(zero), false},
           {wide, 9, 0, zip64_block(le(~uint64_t{0})), false},
           {9, 9, wide, zip64_block(le(~uint64_t{9})), false},
           {9, 9, 0, zip64_block(nine), false},
           {9, 9, 0, zip64_block(""), true},
           {9, 9, 0, "FB", false},
           {9, 9, 0, "FB\x05", false},
           {9, 9, 0, "FB\x05" + std::string(4, '\0'), false},
       }) {
    SimpleZip z{.size = c.size, .compressed = c.compressed, .local = c.local};
    z.extra = c.extra;
    std::string error = error_of_zip(z.bytes());
    CHECK_MESSAGE(error.empty() == c.valid, error);
  }
  SimpleZip local{.local_size = wide, .local_compressed = wide};
  CHECK(contains(error_of_zip(local.bytes()), "is described differently by its local header"));
  local.local_extra = zip64_block(nine + zero);
  CHECK(contains(error_of_zip(local.bytes()), "is described differently by its local header"));
}

TEST_CASE("every field of every header at its limits is refused or changes nothing") {
  struct Field {
    uint64_t Zip::*record;           // the record at the end that holds it, or
    std::vector<uint64_t> Zip::*of;  // the header of a record
    uint64_t offset;
    int bytes;
  };
  std::vector<Field> fields;
  for (uint64_t at : {local_flags, local_method, local_name_size, local_extra_size, uint64_t{4}}) {
    fields.push_back({nullptr, &Zip::locals, at, 2});
  }
  for (uint64_t at : {uint64_t{0}, local_crc, local_compressed, local_size}) {
    fields.push_back({nullptr, &Zip::locals, at, 4});
  }
  for (uint64_t at : {central_flags, central_method, central_name_size, central_extra_size,
                      central_comment_size, central_disk, uint64_t{4}, uint64_t{6}, uint64_t{36}}) {
    fields.push_back({nullptr, &Zip::centrals, at, 2});
  }
  for (uint64_t at :
       {uint64_t{0}, central_crc, central_compressed, central_size, central_local, uint64_t{38}}) {
    fields.push_back({nullptr, &Zip::centrals, at, 4});
  }
  for (uint64_t at : {end_disk, end_directory_disk, end_count_here, end_count, end_comment_size}) {
    fields.push_back({&Zip::end, nullptr, at, 2});
  }
  for (uint64_t at : {uint64_t{0}, end_directory_size, end_directory})
    fields.push_back({&Zip::end, nullptr, at, 4});
  for (uint64_t at : {zip64_size, zip64_count_here, zip64_count, zip64_directory_size, zip64_directory}) {
    fields.push_back({&Zip::zip64_end, nullptr, at, 8});
  }
  for (uint64_t at : {zip64_disk, zip64_directory_disk}) fields.push_back({&Zip::zip64_end, nullptr, at, 4});
  fields.push_back({&Zip::locator, nullptr, locator_offset, 8});
  for (uint64_t at : {locator_disk, locator_disks}) fields.push_back({&Zip::locator, nullptr, at, 4});

  const auto original = read_zip(as_bytes(make_zip(three).bytes()), "FILE");
  size_t refused = 0;
  for (const Field& field : fields) {
    uint64_t max = ~uint64_t{0} >> (64 - 8 * field.bytes);
    for (uint64_t value : {uint64_t{0}, uint64_t{1}, max / 2, max / 2 + 1, max - 9, max - 1, max}) {
      Zip zip = make_zip(three);
      std::string bytes = zip.bytes();
      uint64_t at = field.offset + (field.of == nullptr ? zip.*field.record : (zip.*field.of)[0]);
      bytes.replace(at, field.bytes, le(value).substr(0, field.bytes));
      std::vector<ZipEntry> entries;
      std::string error = error_of([&] { entries = read_zip(as_bytes(bytes), "FILE"); });
      refused += error.empty() ? 0 : 1;
      if (!error.empty()) continue;
      REQUIRE(entries.size() == original.size());
      for (size_t i = 0; i < entries.size(); i++) {
        CHECK(entries[i].name == original[i].name);
        CHECK(entries[i].offset == original[i].offset);
        CHECK(entries[i].size == original[i].size);
      }
    }
  }
  CHECK(refused > 150);
}

TEST_CASE("what the end of the archive says must fit it") {
  auto patched = [](uint64_t Zip::*record, uint64_t offset, auto value) {
    return error_after(
        [=](std::string& bytes, const Zip& zip) { patch(bytes, zip.*record + offset, value); });
  };
  CHECK(contains(patched(&Zip::end, end_disk, uint16_t{1}), "split over several disks"));
  CHECK(contains(patched(&Zip::end, end_count_here, uint16_t{2}), "split over several disks"));
  CHECK(contains(patched(&Zip::zip64_end, zip64_disk, uint32_t{1}), "split over several disks"));
  CHECK(contains(patched(&Zip::locator, locator_disks, uint32_t{2}), "split over several disks"));
  CHECK(contains(patched(&Zip::locator, locator_offset, uint64_t{0}),
                 "does not point to the record before it"));
  CHECK(contains(patched(&Zip::zip64_end, 0, uint32_t{0}), "there is no zip64 end record at byte"));
  CHECK(contains(patched(&Zip::zip64_end, zip64_size, uint64_t{45}), "there is no zip64 end record at byte"));
  CHECK(contains(patched(&Zip::locator, 0, uint32_t{0}), "the central directory"));
  CHECK(contains(patched(&Zip::end, end_directory, uint32_t{7}), "disagree"));
  CHECK(contains(patched(&Zip::end, end_directory_size, uint32_t{7}), "disagree"));
  CHECK(contains(patched(&Zip::zip64_end, zip64_directory, ~uint64_t{9}), "disagree"));
  std::string end = error_after([](std::string& bytes, const Zip& zip) {
    patch(bytes, zip.end + end_directory, uint32_t{0xffffffff});
    patch(bytes, zip.zip64_end + zip64_directory, ~uint64_t{9});
  });
  CHECK(contains(end, "the central directory (byte 18446744073709551606, "));
  std::string many = error_after([](std::string& bytes, const Zip& zip) {
    patch(bytes, zip.end + end_count, uint32_t{0xffffffff});
    patch(bytes, zip.end + end_count_here, uint32_t{0xffffffff});
    patch(bytes, zip.zip64_end + zip64_count, uint64_t{1} << 60);
    patch(bytes, zip.zip64_end + zip64_count_here, uint64_t{1} << 60);
  });
  CHECK_FALSE(many.empty());
  std::string missing = without_zip64(make_zip(three));
  patch(missing, missing.size() - 22 + end_directory, uint32_t{0xffffffff});
  CHECK(contains(error_of_zip(missing), "refers to a zip64 end record that is missing"));
}

TEST_CASE("a directory that claims too many or too few records is refused before any is read") {
  for (uint64_t count : {uint64_t{2}, uint64_t{4}, uint64_t{5}, uint64_t{1} << 40, ~uint64_t{0}}) {
    std::string error = error_after([count](std::string& bytes, const Zip& zip) {
      patch(bytes, zip.end + end_count_here, uint16_t{0xffff});
      patch(bytes, zip.end + end_count, uint16_t{0xffff});
      patch(bytes, zip.zip64_end + zip64_count_here, count);
      patch(bytes, zip.zip64_end + zip64_count, count);
    });
    CHECK_FALSE(error.empty());
    if (count > 1000) CHECK(contains(error, "cannot hold"));
  }
}

TEST_CASE("a comment after the end record is skipped, anything else is not") {
  std::string bytes = make_zip(three).bytes();
  std::string commented = bytes + std::string(300, 'c');
  patch(commented, bytes.size() - 2, uint16_t{300});
  CHECK(error_of_zip(commented).empty());
  CHECK(contains(error_of_zip(bytes + "c"), "the end of the zip archive is missing"));
  std::string longest = bytes + std::string(0xffff, 'c');
  patch(longest, bytes.size() - 2, uint16_t{0xffff});
  CHECK(error_of_zip(longest).empty());
  CHECK(contains(error_of_zip(longest + "c"), "the end of the zip archive is missing"));
}

TEST_CASE("local and central header must agree") {
  auto differs = [](uint64_t offset, auto value) {
    return error_after(
        [=](std::string& bytes, const Zip& zip) { patch(bytes, zip.locals[2] + offset, value); });
  };
  std::string different = "record 'a/three' is described differently by its local header";
  CHECK(contains(differs(local_flags, uint16_t{0x800}), different));
  CHECK(contains(differs(local_method, uint16_t{8}), different));
  CHECK(contains(differs(local_crc, uint32_t{1}), different));
  CHECK(contains(differs(local_size, uint32_t{4}), different));
  CHECK(contains(differs(local_compressed, uint32_t{6}), different));
  CHECK(differs(local_size, uint32_t{5}).empty());
  CHECK(contains(differs(local_name, 'b'), "record 'a/three' has another name in its local header"));
  CHECK(contains(differs(local_name_size, uint16_t{6}), "has another name in its local header"));
  CHECK(contains(differs(local_extra_size, uint16_t{0xffff}),
                 "has an extra field that reaches beyond the records"));
  CHECK(contains(differs(0, uint32_t{0}), "record 'a/three' has no local header at byte"));
}

TEST_CASE("records that overlap, leave gaps or lie elsewhere are refused") {
  auto moved = [](size_t record, size_t to) {
    return error_after([=](std::string& bytes, const Zip& zip) {
      patch(bytes, zip.centrals[record] + central_local, static_cast<uint32_t>(zip.locals[to]));
      bytes.replace(zip.centrals[record] + central_name, three[to].name.size(), three[to].name);
    });
  };
  CHECK_FALSE(moved(1, 0).empty());
  auto grown = error_after([](std::string& bytes, const Zip& zip) {
    for (uint64_t field : {central_compressed, central_size}) {
      patch(bytes, zip.centrals[0] + field, static_cast<uint32_t>(zip.locals[1] - zip.payloads[0] + 1));
    }
  });
  CHECK(contains(grown, "record 'a/one' overlaps what begins at byte"));
  auto beyond = error_after([](std::string& bytes, const Zip& zip) {
    patch(bytes, zip.centrals[0] + central_local, static_cast<uint32_t>(zip.directory - 29));
  });
  CHECK(contains(beyond, "is beyond the records"));
  auto one_more = error_after([](std::string& bytes, const Zip& zip) {
    for (uint64_t field : {central_compressed, central_size}) {
      patch(bytes, zip.centrals[2] + field, static_cast<uint32_t>(zip.directory - zip.payloads[2] + 1));
    }
  });
  CHECK(contains(one_more, "record 'a/three' of 22 bytes does not fit the file"));
  SimpleZip gap;
  gap.after = "?";
  CHECK(contains(error_of_zip(gap.bytes()), "record 'a/b' is followed by 1 bytes at byte"));
  gap.flags = 8;
  gap.after = le(gap.crc) + le(uint32_t{9}) + le(uint32_t{9}) + "?";
  CHECK(contains(error_of_zip(gap.bytes()), "record 'a/b' is followed by 13 bytes at byte"));
  SimpleZip prefix;
  prefix.before = "#!/bin/sh\n";
  prefix.local = 10;
  CHECK(contains(error_of_zip(prefix.bytes()), "10 bytes stand before the first record"));
  SimpleZip tail;
  tail.tail = "?";
  CHECK(contains(error_of_zip(tail.bytes()), "1 bytes follow the last directory entry"));
  auto disk = error_after(
      [](std::string& bytes, const Zip& zip) { patch(bytes, zip.centrals[1] + central_disk, uint16_t{1}); });
  CHECK(contains(disk, "record 'a/two' lies on another disk"));

  // The directory may name two records for the same bytes.
  Zip zip = make_zip({{"a/b", "x"}, {"a/c", "x"}});
  std::string bytes = zip.bytes();
  patch(bytes, zip.centrals[1] + central_local, uint32_t{0});
  bytes[zip.centrals[1] + central_name + 2] = 'b';
  CHECK(contains(error_of_zip(bytes), "record 'a/b' stands twice in the archive"));

  std::string prefixed = "#!/bin/sh\n" + make_zip(three).bytes();
  CHECK_FALSE(error_of_zip(prefixed).empty());
}

TEST_CASE("names that stand twice, lead out of the archive or are no names") {
  CHECK(
      contains(error_of_zip(make_zip({{"a/b", "x"}, {"a/b", "x"}}).bytes()), "stands twice in the archive"));
  for (std::string name : {"/a/b", "../b", "a/../b", "a/..", "..", "a\\b"}) {
    CHECK(
        contains(error_of_zip(make_zip({{name, "x"}}).bytes()), "has a name that leads out of the archive"));
  }
  CHECK(contains(error_of_zip(make_zip({{std::string("a/b\0c", 5), "x"}}).bytes()),
                 "record 'a/b\\x00c' has a name"));
  CHECK(contains(error_of_zip(make_zip({{"", "x"}}).bytes()), "record '' has a name of 0 bytes"));
  CHECK(contains(error_of_zip(make_zip({{std::string(65000, 'n'), "x"}}).bytes()),
                 "has a name of 65000 bytes"));
  CHECK(error_of_zip(make_zip({{"a/..b", "x"}, {"a/b..", "y"}, {"a/%s\xe4\xb8\xad", "z"}}).bytes()).empty());
}

TEST_CASE("encrypted records and unknown flags are refused") {
  auto with_flags = [](uint16_t flags) {
    return error_after([=](std::string& bytes, const Zip& zip) {
      patch(bytes, zip.locals[0] + local_flags, flags);
      patch(bytes, zip.centrals[0] + central_flags, flags);
    });
  };
  CHECK(contains(with_flags(0x809), "record 'a/one' is encrypted"));
  CHECK(contains(with_flags(0x848), "unsupported flags 0x848"));
  CHECK(contains(with_flags(0x80a), "unsupported flags"));
  SimpleZip stored{.compressed = 8};
  CHECK(contains(error_of_zip(stored.bytes()), "is stored, yet takes 8 bytes for 9"));
}

TEST_CASE("a cut archive is refused at every length") {
  std::string bytes = make_zip(three).bytes();
  for (size_t size = 0; size < bytes.size(); size++) CHECK_FALSE(error_of_zip(bytes.substr(0, size)).empty());
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
