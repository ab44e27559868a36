// Real files cut at every byte, and with every byte changed: an error, or what was there before.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <map>

#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

/// A copy of a file of which single bytes are changed and changed back.
class Victim {
 public:
  explicit Victim(const std::string& fixture) : bytes_(read_file(data_path("checkpoint/" + fixture))) {
    write_file(path_, bytes_);
    file_ = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    original_ = read_all(path_);
  }
  ~Victim() { close(file_); }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] const std::vector<Content>& original() const { return original_; }

  /// What reading gives with one byte changed.
  std::vector<Content> read_with(size_t offset, char byte, std::string& error,
                                 const CheckpointOptions& options = {}) {
    write_byte(offset, byte);
    std::vector<Content> contents;
    error = error_of([&] { contents = read_all(path_, options); });
    write_byte(offset, bytes_[offset]);
    return contents;
  }

 private:
  void write_byte(size_t offset, char byte) const {
    if (pwrite(file_, &byte, 1, static_cast<off_t>(offset)) != 1) throw Error("cannot write " + path_);
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "victim.pth";
  std::string bytes_;
  int file_ = -1;
  std::vector<Content> original_;
};

constexpr const char* archives[] = {"dict.pth", "state_dict.pth", "views.pth", "shapes.pth"};
constexpr unsigned char changes[] = {0x01, 0x80, 0xff};

char changed(char byte, unsigned char by) { return static_cast<char>(static_cast<unsigned char>(byte) ^ by); }

TEST_CASE("a checkpoint cut at every byte is refused") {
  for (const char* name : {"dict.pth", "other_values.pth", "legacy.pth", "legacy_protocol4.pth"}) {
    std::string bytes = read_file(data_path(std::string("checkpoint/") + name));
    TemporaryDirectory directory;
    std::string path = directory / "x.pth";
    write_file(path, bytes);
    REQUIRE(error_of([&] { read_all(path); }).empty());
    for (size_t size = bytes.size(); size-- > 0;) {
      std::filesystem::resize_file(path, size);
      std::string error = error_of([&] { Checkpoint::open(path); });
      CHECK_MESSAGE(error.starts_with(path + ": "), name << " cut at " << size);
    }
  }
}

TEST_CASE("a changed byte in a payload is refused, elsewhere refused or without effect") {
  for (const char* name : archives) {
    Victim victim(name);
    std::map<size_t, size_t> payloads;  // begin to end
    for (const ZipEntry& entry : read_zip(as_bytes(victim.bytes()), name)) {
      payloads.emplace(entry.offset, entry.offset + entry.size);
    }
    size_t harmless = 0;
    for (size_t at = 0; at < victim.bytes().size(); at++) {
      auto next = payloads.upper_bound(at);
      bool in_payload = next != payloads.begin() && at < std::prev(next)->second;
      for (unsigned char by : changes) {
        std::string error;
        auto contents = victim.read_with(at, changed(victim.bytes()[at], by), error);
        if (error.empty()) {
          harmless++;
          CHECK_MESSAGE(!in_payload, name << ": byte " << at << " of a payload changed by " << int{by});
          CHECK_MESSAGE(contents == victim.original(), name << ": byte " << at << " changed by " << int{by});
        } else {
          CHECK(error.starts_with(victim.path() + ": "));
        }
      }
    }
    CHECK(harmless > 0);  // padding, times, attributes
  }
}

// Without checksums a changed pickle may well describe other tensors; but never elements outside their
// storage, which the address sanitizer would see, and never anything but an Error.
TEST_CASE("a changed byte without checksums is an error or another checkpoint") {
  CheckpointOptions options;
  options.check_crc = false;
  for (const char* name :
       {"views.pth", "parameters.pth", "protocol4.pth", "legacy.pth", "legacy_protocol4.pth"}) {
    Victim victim(name);
    size_t refused = 0;
    for (size_t at = 0; at < victim.bytes().size(); at++) {
      for (unsigned char by : changes) {
        std::string error;
        victim.read_with(at, changed(victim.bytes()[at], by), error, options);
        if (error.empty()) continue;
        refused++;
        CHECK(error.starts_with(victim.path() + ": "));
        CHECK(error.find('\n') == std::string::npos);
      }
    }
    CHECK(refused > 100);
  }
}

TEST_CASE("random changes of a pickle are an error or another checkpoint") {
  std::string good = pickle_of(pickled_dict({{"x", pickled_tensor()}, {"y", pickled_tensor({.key = "1"})}}));
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  uint64_t random = 1;
  auto next = [&random](uint64_t below) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % below;
  };
  size_t refused = 0;
  constexpr size_t rounds = 5000;
  for (size_t round = 0; round < rounds; round++) {
    std::string pickle = good;
    for (uint64_t changes_left = 1 + next(3); changes_left > 0; changes_left--) {
      uint64_t at = next(pickle.size());
      switch (next(4)) {
        case 0:
          pickle[at] = static_cast<char>(next(256));
          break;
        case 1:
          pickle.erase(at, 1 + next(8));
          break;
        case 2:
          pickle.insert(at, 1, static_cast<char>(next(256)));
          break;
        default:
          pickle.insert(at, good, next(good.size()), next(40));
      }
    }
    std::filesystem::remove(path);  // some file systems wait for the disk when a file is written anew
    write_file(path, make_zip(checkpoint_records(pickle, {floats(6), floats(6)})).bytes());
    std::string error = error_of([&] { read_all(path); });
    refused += error.empty() ? 0 : 1;
    CHECK((error.empty() || error.starts_with(path + ": ")));
  }
  CHECK(refused > rounds / 2);
  CHECK(refused < rounds);
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
