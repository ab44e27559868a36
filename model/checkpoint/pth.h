// Checkpoints of PyTorch, read without Python: the zip archives of torch.save and the files from before
// PyTorch 1.6. A checkpoint here is a dict of dense tensors of float32, float16 or bfloat16, or a list of
// them.
//
// The archive is ROOT/data.pkl (the pickled object), ROOT/byteorder, and one record ROOT/data/KEY for each
// storage.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/mapped_file.h"
#include "model/checkpoint/source_tensor.h"
#include "model/checkpoint/zip.h"

namespace rwkv {

/// Whether the file begins as the archives of torch.save do.
bool is_zip(std::span<const std::byte> file);

/// Whether it begins as one of them, or as a file of PyTorch before 1.6.
bool is_checkpoint(std::span<const std::byte> file);

struct CheckpointOptions {
  bool check_crc = true;
};

/// An open checkpoint: it owns the mapping that its tensors point into. Move-only; reading from several
/// threads is safe.
///
/// Checksums: open() compares those of the records that it reads itself (the pickle and the byte order).
/// Those of the storages would cost a pass over the whole file, so each is compared when the first of its
/// elements is read, while its pages are about to be used anyway; whoever uses SourceTensor::data directly
/// calls check() first. Files from before PyTorch 1.6 have no checksums.
class Checkpoint {
 public:
  /// Checks everything but the storages' checksums. Throws Error, also for what is no checkpoint: the message
  /// names what it is.
  static Checkpoint open(const std::string& path, const CheckpointOptions& options = {});

  /// In the order of the file's dict or list; names are unique and there is at least one.
  [[nodiscard]] const std::vector<SourceTensor>& tensors() const { return tensors_; }
  /// nullptr when there is none of that name.
  [[nodiscard]] const SourceTensor* find(std::string_view name) const;
  /// Keys of the dict whose values are no tensors.
  [[nodiscard]] const std::vector<std::string>& other_names() const { return other_names_; }
  /// True for a list of tensors, whose names are their places in it: "0", "1", ...
  [[nodiscard]] bool is_list() const { return is_list_; }
  [[nodiscard]] const MappedFile& file() const { return file_; }
  /// False for a file from before PyTorch 1.6.
  [[nodiscard]] bool has_checksums() const { return !records_.empty(); }

  /// Elements [first, first + count) of one of this checkpoint's tensors, counted in the order of a dense
  /// tensor (last index fastest), whatever its strides: as fp32, or in the tensor's own type. Throws Error
  /// when the storage is damaged.
  void read_f32(const SourceTensor& tensor, uint64_t first, uint64_t count, float* out) const;
  void read(const SourceTensor& tensor, uint64_t first, uint64_t count, std::byte* out) const;

  /// Compares the checksum of the tensor's storage, once; nothing if CheckpointOptions say so. Throws Error.
  void check(const SourceTensor& tensor) const;

  /// Compares the checksums of all records that were not compared yet. Called with bytes done and bytes in
  /// total, at least once per 16 MB.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;
  void check_all(const Progress& progress = {}) const;

 private:
  void open_zip();
  void open_legacy();
  void read_pickle_record(const std::string& root,
                          const std::unordered_map<std::string_view, size_t>& records);
  void check_record(size_t index, const std::function<void(uint64_t)>& progress = {}) const;
  [[nodiscard]] std::span<const std::byte> payload(size_t index) const;

  MappedFile file_;
  CheckpointOptions options_;
  std::vector<SourceTensor> tensors_;
  std::vector<std::string> other_names_;
  bool is_list_ = false;
  std::unordered_map<std::string_view, size_t> index_;  // of tensors_, by name
  std::vector<ZipEntry> records_;
  std::unique_ptr<std::atomic<bool>[]> checked_;  // per record
};

}  // namespace rwkv
