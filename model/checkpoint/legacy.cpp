#include "model/checkpoint/legacy.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/checked.h"
#include "core/error.h"
#include "model/checkpoint/byte_reader.h"

namespace rwkv {
namespace {

constexpr std::string_view magic_number = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr int64_t protocol_version = 1001;

/// Reads the pickles at the front of a file, one after the other.
class PickleSequence {
 public:
  PickleSequence(std::span<const std::byte> file, const std::string& path) : rest_(file), path_(path) {}

  Pickle next(const char* what) {
    Pickle pickle =
        read_pickle(rest_.first(std::min<size_t>(rest_.size(), pickle_max_size)), path_ + ": " + what);
    rest_ = rest_.subspan(pickle.size);
    return pickle;
  }
  [[nodiscard]] std::span<const std::byte> rest() const { return rest_; }

 private:
  std::span<const std::byte> rest_;
  const std::string& path_;
};

void check_machine(const Pickle& machine, const std::string& path) {
  const PickleNode* dict = machine.root.node();
  bool known = false;
  if (dict != nullptr && dict->kind == PickleNode::Kind::dict) {
    for (size_t i = 0; i + 1 < dict->items.size(); i += 2) {
      const std::string_view* key = dict->items[i].string();
      const bool* value = dict->items[i + 1].boolean();
      if (key == nullptr || *key != "little_endian" || value == nullptr) continue;
      if (!*value) {
        throw Error(path + ": was written on a big-endian machine: save it again on a little-endian one");
      }
      known = true;
    }
  }
  if (!known) throw Error(path + ": does not say for which machine it was written");
}

using StorageIds = std::unordered_map<std::string_view, StorageId>;

StorageIds storages_by_key(const Pickle& object, const std::string& path) {
  StorageIds ids;
  for (const StorageId& id : storages_of(object, path)) {
    auto [place, is_new] = ids.emplace(id.key, id);
    if (!is_new && (place->second.type != id.type || place->second.elements != id.elements)) {
      throw Error(fmt::format("{}: storage '{}' is described in two ways", path, printable(id.key)));
    }
  }
  return ids;
}

}  // namespace

bool is_legacy_checkpoint(std::span<const std::byte> file) {
  // PROTO n, LONG1 10 bytes; protocol 4 and later put a FRAME of 8 bytes between them.
  std::string_view text(reinterpret_cast<const char*>(file.data()), std::min<size_t>(file.size(), 64));
  size_t begin = text.size() > 2 && text[2] == '\x95' ? 11 : 2;
  return text.starts_with('\x80') && text.size() > begin && text.substr(begin).starts_with("\x8a\x0a") &&
         text.substr(begin + 2).starts_with(magic_number);
}

LegacyCheckpoint read_legacy_checkpoint(std::span<const std::byte> file, const std::string& path) {
  PickleSequence pickles(file, path);
  pickles.next("the magic number");
  Pickle version = pickles.next("the protocol version");
  if (version.root.integer() == nullptr || *version.root.integer() != protocol_version) {
    throw Error(fmt::format("{}: its protocol version is not {}", path, protocol_version));
  }
  check_machine(pickles.next("the machine"), path);
  Pickle object = pickles.next("the object");
  LegacyCheckpoint checkpoint;
  checkpoint.dict = read_state_dict(object, path);
  StorageIds ids = storages_by_key(object, path);

  Pickle keys = pickles.next("the storages' keys");
  const PickleNode* list = keys.root.node();
  if (list == nullptr || list->kind != PickleNode::Kind::list) {
    throw Error(path + ": has no list of storages");
  }
  ByteReader reader(pickles.rest(), path, file.size() - pickles.rest().size());
  for (const PickleValue& item : list->items) {
    auto id = item.string() == nullptr ? ids.end() : ids.find(*item.string());
    if (id == ids.end()) throw Error(path + ": lists a storage that nothing uses");
    uint64_t begin = reader.offset(), elements = reader.u64();
    if (elements != id->second.elements || elements > reader.remaining() / id->second.type->size) {
      throw Error(fmt::format(
          "{}: storage '{}' at byte {} has {} elements; its description says {}, and {} bytes are "
          "left in the file: it may be cut off",
          path, printable(id->first), begin, elements, id->second.elements, reader.remaining()));
    }
    auto bytes = reader.bytes(elements * id->second.type->size);
    if (!checkpoint.storages.emplace(id->first, bytes).second) {
      throw Error(fmt::format("{}: storage '{}' stands twice", path, printable(id->first)));
    }
  }
  if (reader.remaining() > 0) {
    throw Error(fmt::format("{}: {} bytes follow the last storage", path, reader.remaining()));
  }
  return checkpoint;
}

}  // namespace rwkv
