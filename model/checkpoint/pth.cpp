#include "model/checkpoint/pth.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/crc32.h"
#include "core/error.h"
#include "model/checkpoint/foreign.h"
#include "model/checkpoint/legacy.h"
#include "model/checkpoint/pickle.h"

namespace rwkv {
namespace {

constexpr uint64_t checksum_block = 16 << 20;

using Records = std::unordered_map<std::string_view, size_t>;

bool starts_with(std::span<const std::byte> file, std::string_view magic) {
  return file.size() >= magic.size() &&
         std::string_view(reinterpret_cast<const char*>(file.data()), magic.size()) == magic;
}

/// The folder of all records, with its slash, of an archive that torch.save wrote.
std::string root_folder(const std::vector<ZipEntry>& records, const std::string& path) {
  std::string root;
  if (!records.empty()) root = records[0].name.substr(0, records[0].name.find('/') + 1);
  bool has_pickle = false;
  for (const ZipEntry& record : records) {
    has_pickle |= !root.empty() && record.name == root + "data.pkl";
    if (!root.empty() && !record.name.starts_with(root)) {
      throw Error(fmt::format("{}: record '{}' lies outside the folder '{}' of the others", path,
                              printable(record.name), printable(root)));
    }
  }
  if (!has_pickle) {
    throw Error(
        fmt::format("{}: a zip archive, but no PyTorch checkpoint: it has no data.pkl in its folder{}", path,
                    records.empty() ? "" : fmt::format(" (but '{}')", printable(records[0].name))));
  }
  for (const ZipEntry& record : records) {
    if (record.name == root + "constants.pkl" || record.name.starts_with(root + "code/")) {
      throw Error(path +
                  ": a TorchScript archive (torch.jit.save): save the tensors instead, "
                  "torch.save(model.state_dict(), FILE)");
    }
  }
  for (const ZipEntry& record : records) {
    if (record.method == 0) continue;
    throw Error(
        fmt::format("{}: record '{}' is compressed (method {}), which PyTorch never does: pack the archive "
                    "again without compression, or get the original file",
                    path, printable(record.name), record.method));
  }
  return root;
}

}  // namespace

// An archive begins with its first record, an empty one with one of the two end records.
bool is_zip(std::span<const std::byte> file) {
  return starts_with(file, "PK\x03\x04") || starts_with(file, "PK\x05\x06") ||
         starts_with(file, "PK\x06\x06");
}

bool is_checkpoint(std::span<const std::byte> file) { return is_zip(file) || is_legacy_checkpoint(file); }

Checkpoint Checkpoint::open(const std::string& path, const CheckpointOptions& options) {
  Checkpoint checkpoint;
  checkpoint.file_ = MappedFile::open(path);
  checkpoint.options_ = options;
  auto bytes = checkpoint.file_.bytes();
  if (is_zip(bytes)) {
    checkpoint.open_zip();
  } else if (is_legacy_checkpoint(bytes)) {
    checkpoint.open_legacy();
  } else {
    throw Error(fmt::format("{}: {}", path, describe_foreign_file(bytes)));
  }
  for (size_t i = 0; i < checkpoint.tensors_.size(); i++) {
    checkpoint.index_.emplace(checkpoint.tensors_[i].name, i);
  }
  return checkpoint;
}

void Checkpoint::open_zip() {
  const std::string& path = file_.path();
  records_ = read_zip(file_.bytes(), path);
  checked_ = std::make_unique<std::atomic<bool>[]>(records_.size());
  std::string root = root_folder(records_, path);
  Records records;
  for (size_t i = 0; i < records_.size(); i++) records.emplace(records_[i].name, i);
  if (auto order = records.find(root + "byteorder"); order != records.end()) {
    check_record(order->second);
    auto bytes = payload(order->second);
    if (!starts_with(bytes, "little") || bytes.size() != 6) {
      throw Error(path + ": was not written on a little-endian machine (byteorder): save it again on one");
    }
  }
  read_pickle_record(root, records);
}

void Checkpoint::read_pickle_record(const std::string& root, const Records& records) {
  const std::string& path = file_.path();
  size_t index = records.at(root + "data.pkl");
  auto bytes = payload(index);
  if (bytes.size() > pickle_max_size) {
    throw Error(fmt::format("{}: data.pkl has {} bytes, more than the {} that are read", path, bytes.size(),
                            pickle_max_size));
  }
  check_record(index);
  Pickle pickle = read_pickle(bytes, path + ": data.pkl");
  if (pickle.size != bytes.size()) {
    throw Error(fmt::format("{}: data.pkl: {} bytes follow the pickle's end at byte {}", path,
                            bytes.size() - pickle.size, pickle.size));
  }
  StateDict dict = read_state_dict(pickle, path);
  other_names_ = std::move(dict.other_names);
  is_list_ = dict.is_list;
  for (const StateTensor& tensor : dict.tensors) {
    std::string name = fmt::format("{}data/{}", root, tensor.storage.key);
    auto record = records.find(name);
    if (record == records.end()) {
      throw Error(fmt::format("{}: tensor '{}': the record '{}' with its elements is missing", path,
                              printable(tensor.name), printable(name)));
    }
    tensors_.push_back(view_storage(tensor, payload(record->second), path));
    tensors_.back().record = record->second;
  }
}

void Checkpoint::open_legacy() {
  const std::string& path = file_.path();
  LegacyCheckpoint legacy = read_legacy_checkpoint(file_.bytes(), path);
  other_names_ = std::move(legacy.dict.other_names);
  is_list_ = legacy.dict.is_list;
  for (const StateTensor& tensor : legacy.dict.tensors) {
    auto storage = legacy.storages.find(tensor.storage.key);
    if (storage == legacy.storages.end()) {
      throw Error(fmt::format("{}: tensor '{}': its storage is missing", path, printable(tensor.name)));
    }
    tensors_.push_back(view_storage(tensor, storage->second, path));
  }
}

const SourceTensor* Checkpoint::find(std::string_view name) const {
  auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> Checkpoint::payload(size_t index) const {
  return file_.bytes().subspan(records_[index].offset, records_[index].size);
}

void Checkpoint::check_record(size_t index, const std::function<void(uint64_t)>& progress) const {
  if (!options_.check_crc || checked_[index]) return;
  const ZipEntry& record = records_[index];
  auto bytes = payload(index);
  uint32_t crc = 0;
  for (uint64_t done = 0; done < bytes.size(); done += checksum_block) {
    auto block = bytes.subspan(done, std::min<uint64_t>(checksum_block, bytes.size() - done));
    crc = crc32(block, crc);
    if (progress) progress(done + block.size());
  }
  if (crc != record.crc) {
    throw Error(fmt::format(
        "{}: record '{}' is damaged: its checksum is {:08x}, but {:08x} is stored; {}", file_.path(),
        printable(record.name), crc, record.crc,
        record.crc == 0 ? "if the file was saved without checksums, rwkv-convert --no-crc reads it"
                        : "copy or download the file again (rwkv-convert --no-crc reads it as it is)"));
  }
  checked_[index] = true;
}

void Checkpoint::check(const SourceTensor& tensor) const {
  if (tensor.record != no_record) check_record(tensor.record);
}

void Checkpoint::check_all(const Progress& progress) const {
  if (!options_.check_crc) return;
  uint64_t done = 0, total = 0;
  for (size_t i = 0; i < records_.size(); i++) total += checked_[i] ? 0 : records_[i].size;
  for (size_t i = 0; i < records_.size(); i++) {
    if (checked_[i]) continue;
    check_record(i, [&](uint64_t bytes) {
      if (progress) progress(done + bytes, total);
    });
    done += records_[i].size;
  }
}

void Checkpoint::read_f32(const SourceTensor& tensor, uint64_t first, uint64_t count, float* out) const {
  check(tensor);
  copy_elements_f32(tensor, first, count, out);
}

void Checkpoint::read(const SourceTensor& tensor, uint64_t first, uint64_t count, std::byte* out) const {
  check(tensor);
  copy_elements(tensor, first, count, out);
}

}  // namespace rwkv
