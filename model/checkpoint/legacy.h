// Checkpoints written before PyTorch 1.6 (or since with _use_new_zipfile_serialization=False). No archive,
// but one after the other:
//
//   pickle    the magic number
//   pickle    the protocol version, 1001
//   pickle    a dict about the machine: little_endian, type_sizes
//   pickle    the object, whose persistent ids name storages
//   pickle    the list of the storages' keys
//   storages  in the order of that list: 8 bytes number of elements, then the elements
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <unordered_map>

#include "model/checkpoint/state_dict.h"

namespace rwkv {

struct LegacyCheckpoint {
  StateDict dict;
  std::unordered_map<std::string_view, std::span<const std::byte>> storages;  ///< by key
};

/// True when the file begins with the magic number.
bool is_legacy_checkpoint(std::span<const std::byte> file);

/// The result points into `file`. Throws Error; `path` begins the message.
LegacyCheckpoint read_legacy_checkpoint(std::span<const std::byte> file, const std::string& path);

}  // namespace rwkv
