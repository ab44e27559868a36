// A file in memory, to be changed and cut while it is tried.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "core/error.h"
#include "core/mapped_file.h"

namespace rwkv::test {

class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : descriptor_(memfd_create("test", MFD_CLOEXEC)) {
    write(0, bytes);
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void write(uint64_t offset, std::string_view bytes) const {
    ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written != static_cast<ssize_t>(bytes.size())) throw Error("cannot write memory");
  }
  void resize(uint64_t size) const {
    if (ftruncate(descriptor_, static_cast<off_t>(size)) != 0) throw Error("cannot resize memory");
  }
  /// By this path the process can open it as long as it lives.
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  [[nodiscard]] MappedFile map() const { return MappedFile::from_descriptor(dup(descriptor_), "f"); }

 private:
  int descriptor_;
};

}  // namespace rwkv::test
