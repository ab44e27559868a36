// Makes checkpoints byte by byte, as PyTorch would and as it never would, and reads them back whole.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/checkpoint/pth.h"

namespace rwkv::test {

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// Little-endian.
template <class Integer>
std::string le(Integer value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

template <class Integer>
void patch(std::string& bytes, uint64_t offset, Integer value) {
  bytes.replace(offset, sizeof(value), le(value));
}

// --- Pickles of protocol 2: each function gives the opcodes that push one value ---

std::string pickled(std::string_view text);
std::string pickled(int64_t number);
std::string pickled_global(const std::string& module, const std::string& name);
std::string pickled_tuple(const std::vector<std::string>& items);
std::string pickled_list(const std::vector<std::string>& items);
std::string pickled_call(const std::string& function, const std::vector<std::string>& arguments);
std::string pickled_dict(const std::vector<std::pair<std::string, std::string>>& entries);
/// PROTO 2, the value, STOP.
std::string pickle_of(const std::string& value);

struct PickledTensor {
  int64_t elements = 6;  ///< of the storage
  std::vector<int64_t> sizes = {2, 3}, strides = {3, 1};
  int64_t offset = 0;
  std::string key = "0";
  std::string storage = "FloatStorage";
};

std::string pickled_storage(const PickledTensor& spec);
std::string pickled_tensor(const PickledTensor& spec = {});

// --- Archives ---

struct ZipRecord {
  std::string name;
  std::string payload;
  uint64_t hole = 0;  ///< zeros that follow the payload and belong to it
};

/// An archive with the places of its parts. Holes are left out of the segments.
struct Zip {
  std::vector<std::pair<uint64_t, std::string>> segments;
  std::vector<uint64_t> locals, payloads, centrals;  ///< per record
  uint64_t directory = 0, zip64_end = 0, locator = 0, end = 0;

  [[nodiscard]] std::string bytes() const;
  void write(const std::string& path) const;
};

/// Laid out as PyTorch does it.
Zip make_zip(const std::vector<ZipRecord>& records);

/// root/data.pkl, root/byteorder, root/data/0 ...
std::vector<ZipRecord> checkpoint_records(const std::string& pickle, const std::vector<std::string>& storages,
                                          const std::string& root = "m");
/// An archive with the dict {"x": value} and one storage of 6 floats 0, 1, 2 ...
std::string checkpoint_with(const std::string& value);

std::string floats(size_t count);

// --- Reading back ---

struct Content {
  std::string name;
  DType dtype;
  std::vector<int64_t> sizes;
  std::string elements;
  bool operator==(const Content&) const = default;
};

/// All tensors, after all checksums were compared.
std::vector<Content> read_all(const std::string& path, const CheckpointOptions& options = {});

/// The message of the Error for a file of these bytes, "" if all of it can be read.
std::string error_of_bytes(std::string_view bytes, const CheckpointOptions& options = {});

bool contains(std::string_view text, std::string_view part);

}  // namespace rwkv::test
