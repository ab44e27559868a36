// A regular file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace rwkv {

/// Copies share one mapping, which lives as long as the last of them. An empty file is an empty span. Newer
/// kernels read a file into huge pages (ext4 and xfs, Linux 6.16), if it was not in memory in small ones.
class MappedFile {
 public:
  MappedFile() = default;

  /// Throws Error when the path is missing, unreadable, or no regular file (a directory, a pipe, a device).
  static MappedFile open(const std::string& path);
  /// Takes over the descriptor. `path` is only used in messages.
  static MappedFile from_descriptor(int descriptor, const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

  /// The path of the mapped file that holds this address, or nullptr. Async-signal-safe: it is for the
  /// handler of SIGBUS, which a read raises when the file was truncated after it was mapped.
  static const char* path_at(const void* address);

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> mapping_;
};

}  // namespace rwkv
