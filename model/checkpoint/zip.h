// The directory of a zip archive, as strict as what PyTorch writes allows: APPNOTE.TXT 6.3 without
// encryption, several disks, or bytes that belong to no record. Compressed records are listed, not unpacked.
//
// What PyTorch writes: local headers whose sizes and checksum are 0 (flag 8: they follow the payload, except
// for an empty one); an extra field "FB" that pads each payload to 64 bytes; a zip64 end record always, and
// zip64 extra fields for what does not fit 32 bits (those of local headers hold no usable sizes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rwkv {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  ///< of the payload, from the start of the file
  uint64_t size = 0;    ///< of the payload, which lies inside the file and overlaps no other
  uint32_t crc = 0;     ///< of the record's content, as the directory states it; not compared here
  uint16_t method = 0;  ///< 0: the payload is the content; else it is compressed in that way
};

/// The records in the order of the directory. Everything but the payloads is checked: the central directory,
/// each local header against it, names (unique, relative, no `..`), and that records follow each other
/// without gap or overlap. Memory is in proportion to the directory. Throws Error; `path` begins the message.
std::vector<ZipEntry> read_zip(std::span<const std::byte> file, const std::string& path);

}  // namespace rwkv
