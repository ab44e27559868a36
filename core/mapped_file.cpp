#include "core/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/buffer.h"
#include "core/error.h"

namespace rwkv {
namespace {

/// One mapping as a signal handler sees it. `end` is set last and cleared first, so that a slot matches an
/// address only while all of it is valid.
struct Slot {
  std::atomic<const char*> path = nullptr;
  std::atomic<uintptr_t> begin = 0;
  std::atomic<uintptr_t> end = 0;
};
static_assert(std::atomic<const char*>::is_always_lock_free && std::atomic<uintptr_t>::is_always_lock_free);

/// More mappings than slots are no error: path_at() does not know those beyond.
std::array<Slot, 64> slots;

class Mapping {
 public:
  Mapping(void* address, size_t size, std::string path)
      : address_(address), size_(size), path_(std::move(path)) {
    for (Slot& slot : slots) {
      const char* empty = nullptr;
      if (!slot.path.compare_exchange_strong(empty, path_.c_str())) continue;
      slot_ = &slot;
      slot.begin = reinterpret_cast<uintptr_t>(address);
      slot.end = reinterpret_cast<uintptr_t>(address) + size;
      break;
    }
  }
  ~Mapping() {
    if (slot_ != nullptr) {
      slot_->end = 0;
      slot_->begin = 0;
      slot_->path = nullptr;
    }
    munmap(address_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

 private:
  void* address_;
  size_t size_;
  std::string path_;
  Slot* slot_ = nullptr;
};

struct Descriptor {
  int value;
  ~Descriptor() { close(value); }
};

void require_regular_file(mode_t mode, const std::string& path) {
  if (S_ISREG(mode)) return;
  const char* kind = "no regular file";
  if (S_ISDIR(mode)) kind = "a directory";
  if (S_ISFIFO(mode)) kind = "a pipe";
  if (S_ISCHR(mode) || S_ISBLK(mode)) kind = "a device";
  if (S_ISSOCK(mode)) kind = "a socket";
  throw Error(fmt::format("{}: is {}, not a file; give the path of a regular file", path, kind));
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever. It changes nothing for regular
  // files.
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    int error_number = errno;
    struct stat status {};
    if (stat(path.c_str(), &status) == 0)
      require_regular_file(status.st_mode, path);  // sockets, some devices
    throw system_error(path, "open the file", error_number);
  }
  return from_descriptor(descriptor, path);
}

MappedFile MappedFile::from_descriptor(int descriptor, const std::string& path) {
  Descriptor owner{descriptor};
  struct stat status {};
  if (fstat(descriptor, &status) != 0) throw system_error(path, "read the file's size", errno);
  require_regular_file(status.st_mode, path);
  MappedFile file;
  file.path_ = path;
  auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return file;
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (address == MAP_FAILED) throw system_error(path, "map the file into memory", errno);
  // A wish, which costs nothing where the kernel has none for this file system.
  if (size >= huge_page) madvise(address, size, MADV_HUGEPAGE);
  auto mapping = std::make_shared<const Mapping>(address, size, path);
  file.bytes_ = {static_cast<const std::byte*>(address), size};
  file.mapping_ = std::move(mapping);
  return file;
}

const char* MappedFile::path_at(const void* address) {
  auto value = reinterpret_cast<uintptr_t>(address);
  for (const Slot& slot : slots) {
    if (value >= slot.begin && value < slot.end) return slot.path;
  }
  return nullptr;
}

}  // namespace rwkv
