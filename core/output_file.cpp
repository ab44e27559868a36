#include "core/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "core/buffer.h"
#include "core/checked.h"
#include "core/error.h"

namespace rwkv {
namespace {

/// A temporary file as a signal handler sees it.
struct Slot {
  enum State : int { free, being_filled, in_use };
  std::atomic<int> state = free;
  std::array<char, PATH_MAX> path{};
};
static_assert(std::atomic<int>::is_always_lock_free);

/// More open files than slots are no error: remove_unfinished() does not know those beyond.
std::array<Slot, 16> slots;

int claim_slot(const std::string& path) {
  if (path.size() >= PATH_MAX) return -1;
  for (size_t i = 0; i < slots.size(); i++) {
    int expected = Slot::free;
    if (!slots[i].state.compare_exchange_strong(expected, Slot::being_filled)) continue;
    std::memcpy(slots[i].path.data(), path.c_str(), path.size() + 1);
    slots[i].state = Slot::in_use;
    return static_cast<int>(i);
  }
  return -1;
}

void release_slot(int index) {
  if (index >= 0) slots[static_cast<size_t>(index)].state = Slot::free;
}

/// What to do about the errors that users meet.
Error write_error(const std::string& path, const std::string& action, int error_number) {
  const char* advice = nullptr;
  switch (error_number) {
    case ENOSPC:
      advice = "the disk is full; free some space or write to another disk";
      break;
    case EDQUOT:
      advice = "the disk quota is used up; free some space or write to another disk";
      break;
    case EFBIG:
      advice = "the file is too large for this file system or for the limit of the process (ulimit -f)";
      break;
    case EACCES:
    case EPERM:
      advice = "no permission; write to another directory, or change the permissions of this one";
      break;
    case EROFS:
      advice = "the file system is read-only; write to another one";
      break;
    case ENOENT:
      advice = "no such directory; create it first";
      break;
    default:
      return system_error(path, action, error_number);
  }
  return Error(fmt::format("{}: cannot {}: {}", path, action, advice));
}

/// The file that a chain of symbolic links leads to, whether it exists or not.
std::string follow_links(const std::string& path) {
  constexpr int max_links = 40;
  std::filesystem::path target = path;
  for (int i = 0; i < max_links; i++) {
    std::error_code error;
    if (!std::filesystem::is_symlink(target, error)) return target.string();
    std::filesystem::path next = std::filesystem::read_symlink(target, error);
    if (error) throw system_error(path, "read the symbolic link", error.value());
    target = target.parent_path() / next;
  }
  throw system_error(path, "follow the symbolic link", ELOOP);
}

/// The permissions of the file that will be replaced, or -1 when there is none.
int mode_of_replaced(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return -1;
    throw write_error(path, "create the file", errno);
  }
  if (S_ISDIR(status.st_mode)) throw Error(path + ": is a directory; give the name of a file to write");
  if (!S_ISREG(status.st_mode)) {
    throw Error(path + ": is a pipe, device or socket, not a file to replace; give the name of a file");
  }
  if (faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) {
    throw Error(path +
                ": is write-protected and will not be replaced; choose another name or remove it first");
  }
  return static_cast<int>(status.st_mode & 0777);
}

/// A name in the same directory that nobody uses, at most 255 bytes long whatever the target's is.
std::string temporary_name(const std::string& path) {
  constexpr size_t max_stem = 200;
  std::filesystem::path target = path;
  std::string stem = target.filename().string();
  if (stem.size() > max_stem) {
    size_t end = max_stem;
    while (end > 0 && (static_cast<unsigned char>(stem[end]) & 0xc0) == 0x80) end--;  // whole characters only
    stem.resize(end);
  }
  std::random_device random;
  return (target.parent_path() / fmt::format("{}.{}-{:08x}.partial", stem, getpid(), random())).string();
}

/// Beyond the limit a write would raise SIGXFSZ, which kills the process.
void require_within_limit(const std::string& path, uint64_t end) {
  rlimit limit{};
  bool limited = getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  if ((limited && end > limit.rlim_cur) || end > static_cast<uint64_t>(INT64_MAX)) {
    throw write_error(path, fmt::format("write {} bytes", end), EFBIG);
  }
}

/// Some file systems would first fill the disk to find out that it is too small, and others cannot reserve.
void require_space(int descriptor, const std::string& path, uint64_t size) {
  struct statvfs disk {};
  if (fstatvfs(descriptor, &disk) != 0 || disk.f_blocks == 0) return;  // not every file system can tell
  uint64_t free_bytes = 0;
  if (__builtin_mul_overflow(disk.f_bfree, disk.f_frsize, &free_bytes) || size <= free_bytes) return;
  throw Error(fmt::format(
      "{}: needs {} bytes, but the disk has only {} free; free some space or write to another disk", path,
      size, free_bytes));
}

void reserve(int descriptor, const std::string& path, uint64_t size) {
  if (size == 0) return;
  require_within_limit(path, size);
  require_space(descriptor, path, size);
  int result = 0;
  do {
    result = fallocate(descriptor, 0, 0, static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  bool unsupported = errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS;
  if (result != 0 && !unsupported) throw write_error(path, fmt::format("reserve {} bytes", size), errno);
}

void flush_directory(const std::string& path) {
  std::string directory = std::filesystem::path(path).parent_path().string();
  int descriptor = open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // one may be allowed to write in a directory and not to read it
  int error_number = fsync(descriptor) == 0 ? 0 : errno;
  close(descriptor);
  bool unsupported = error_number == EINVAL || error_number == EROFS;
  if (error_number != 0 && !unsupported) throw system_error(path, "flush the directory", error_number);
}

}  // namespace

OutputFile::OutputFile(const std::string& path, uint64_t expected_size) : path_(follow_links(path)) {
  if (std::filesystem::path(path_).filename().empty()) {
    throw Error(path_ + ": is not the name of a file; give one to write to");
  }
  int mode = mode_of_replaced(path);  // not path_: links of /proc, as of /dev/stdout, name no file
  do {
    release_slot(slot_);
    temporary_ = temporary_name(path_);
    slot_ = claim_slot(temporary_);  // before the file exists, so that no signal finds it unknown
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) {
    int error_number = errno;
    release_slot(slot_);
    throw write_error(path_, "create the file", error_number);
  }
  // Some file systems know no permissions: then there are none to keep.
  if (mode >= 0) (void)fchmod(descriptor_, static_cast<mode_t>(mode));
  try {
    reserve(descriptor_, path_, expected_size);
  } catch (...) {
    discard();
    throw;
  }
  reserved_ = expected_size;
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::discard() {
  if (descriptor_ < 0) return;
  close(std::exchange(descriptor_, -1));
  unlink(temporary_.c_str());
  release_slot(std::exchange(slot_, -1));
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write_at(position_, bytes);
  position_ += bytes.size();
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  uint64_t end = checked_add(offset, bytes.size(), path_.c_str());
  require_within_limit(path_, end);
  if (offset != pending_begin_ + pending_.size()) {
    flush();
    pending_begin_ = offset;
  }
  if (!bytes.empty()) pending_.reserve(huge_page);
  while (!bytes.empty()) {
    const uint64_t left = huge_page - (pending_begin_ + pending_.size()) % huge_page;  // of this huge page
    const auto count = static_cast<size_t>(std::min<uint64_t>(left, bytes.size()));
    pending_.insert(pending_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
    if (count == left) flush();
    bytes = bytes.subspan(count);
  }
  end_ = std::max(end_, end);
}

void OutputFile::flush() {
  std::span<const std::byte> bytes = pending_;
  while (!bytes.empty()) {
    ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(pending_begin_));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw write_error(path_, "write", errno);
    if (written == 0) throw write_error(path_, "write", ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(written));
    pending_begin_ += static_cast<uint64_t>(written);
  }
  pending_.clear();
}

void OutputFile::commit() {
  flush();
  if (reserved_ > end_ && ftruncate(descriptor_, static_cast<off_t>(end_)) != 0) {
    throw write_error(path_, "shorten the file", errno);
  }
  if (fsync(descriptor_) != 0) throw write_error(path_, "flush the file to the disk", errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) throw write_error(path_, "rename the file", errno);
  close(std::exchange(descriptor_, -1));
  release_slot(std::exchange(slot_, -1));
  flush_directory(path_);
}

void OutputFile::remove_unfinished() {
  int error_number = errno;
  for (const Slot& slot : slots) {
    if (slot.state == Slot::in_use) unlink(slot.path.data());
  }
  errno = error_number;
}

void check_not_input(const std::string& output, std::initializer_list<std::string> inputs) {
  for (const std::string& input : inputs) {
    std::error_code ignored;
    if (!input.empty() && std::filesystem::equivalent(output, input, ignored)) {
      throw Error(fmt::format("{}: is in use as the input {}; name another output", output, input));
    }
  }
}

}  // namespace rwkv
