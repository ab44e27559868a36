// The safetensors container: named tensors in one flat file. It knows names, types, sizes and byte ranges,
// not what they mean (model/model_file.h does).
//
//   8 bytes       length of the header, little-endian
//   header        JSON, padded with spaces so that the data begin at a multiple of tensor_file_alignment
//   data          the tensors, contiguous, in the order of the header, covering the rest of the file
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/mapped_file.h"
#include "core/output_file.h"

namespace rwkv {

constexpr uint64_t tensor_file_alignment = 4096;
constexpr uint64_t tensor_file_max_header = 100'000'000;  ///< as in the reference implementation

struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> sizes;
  uint64_t offset = 0;  ///< from the start of the data
  uint64_t bytes = 0;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// A parsed header. Entries stand in the order of their offsets. `by_name` holds the indices of the entries,
/// sorted by name: find() needs it.
struct TensorFileHeader {
  Metadata metadata;
  std::vector<TensorEntry> entries;
  std::vector<uint32_t> by_name;
  uint64_t data_begin = 0;  ///< from the start of the file

  /// nullptr when there is none of that name.
  [[nodiscard]] const TensorEntry* find(std::string_view name) const;
  [[nodiscard]] const std::string* metadata_value(std::string_view key) const;
};

/// True for what begins as such a file: neither a zip archive nor a pickle does.
inline bool is_tensor_file(std::span<const std::byte> file) {
  return file.size() > 9 && static_cast<char>(file[8]) == '{';
}

/// Reads and checks the header of a whole file: tensors must be contiguous from 0 to the end of the file,
/// with byte counts that follow from type and sizes, and unique names. Throws Error; `path` begins the
/// message.
TensorFileHeader parse_tensor_file(std::span<const std::byte> file, const std::string& path);

/// The header's bytes for these entries, the length field and the padding included. Offsets and byte counts
/// are computed here, in the order given, from types and sizes. Throws Error for a name that stands twice or
/// is not UTF-8; other text that is not UTF-8 is written with U+FFFD for the bad bytes.
std::string make_tensor_file_header(const Metadata& metadata, std::vector<TensorEntry>& entries);

}  // namespace rwkv
