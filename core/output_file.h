// A file that appears under its name only when it is complete: it is written beside its final place, flushed
// to the disk, and renamed. Until then, and when anything fails, the old file of that name stays as it was.
// A killed process may leave NAME.PID-RANDOM.partial behind, reserved space reading as zeros. So that none
// can pass for a complete file, write what makes a file valid (the header) last, with write_at(0, header).
// Bytes go to the system in whole huge pages of the file: then newer kernels keep it in huge pages, and who
// maps it reads it faster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace rwkv {

class OutputFile {
 public:
  /// Reserves `expected_size` bytes on the disk first (0: unknown), so that a full disk is found at once. A
  /// symbolic link is followed: the file that it points to is replaced. A replaced file's permissions are
  /// kept. Throws Error, as all functions here do, when the path is a directory, pipe, device or socket, when
  /// the file is write-protected, and when the disk is full or a limit is reached.
  explicit OutputFile(const std::string& path, uint64_t expected_size = 0);
  /// Removes the temporary file unless commit() was called.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// Writes at an absolute offset; the position of write() does not move. What the system refuses may be
  /// noticed by a later call, at the latest by commit().
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  [[nodiscard]] uint64_t position() const { return position_; }

  /// Makes the file visible: flush, rename, flush the directory. The file ends where the farthest write
  /// ended. Nothing may be written afterwards.
  void commit();

  /// Unlinks the temporary files of all open OutputFiles. Async-signal-safe: for handlers of fatal signals.
  static void remove_unfinished();

 private:
  void discard();
  void flush();

  std::string path_, temporary_;
  std::vector<std::byte> pending_;  ///< not yet given to the system: part of one huge page of the file
  uint64_t pending_begin_ = 0;
  uint64_t position_ = 0, end_ = 0, reserved_ = 0;
  int descriptor_ = -1;
  int slot_ = -1;
};

/// Throws Error when writing `output` would replace one of the files in `inputs`, under whatever name.
void check_not_input(const std::string& output, std::initializer_list<std::string> inputs);

}  // namespace rwkv
