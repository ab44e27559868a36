#include "model/checkpoint/foreign.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/error.h"
#include "model/model_file.h"

namespace rwkv {
namespace {

constexpr std::string_view original = "get the original .pth file";
constexpr size_t max_header = 1 << 20;  // as much of a safetensors header as is searched

struct Magic {
  size_t offset;
  std::string_view bytes;
  std::string_view what;
  std::string_view advice = original;
};

using namespace std::string_view_literals;

// GGML and its successors wrote their magic numbers as little-endian words, so they read backwards.
constexpr Magic magics[] = {
    {0, "version https://git-lfs", "a Git-LFS pointer, not the file itself",
     "run git lfs pull, or download the file"},
    {0, "GGUF", "a GGUF model"},
    {0, "lmgg", "a GGML model"},
    {0, "fmgg", "a GGML model"},
    {0, "tjgg", "a GGML model"},
    {0, "algg", "a GGML adapter"},
    {0, "\x1f\x8b", "a gzip file", "unpack it first"},
    {0, "\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first"},
    {0, "\xfd\x37zXZ\0"sv, "an xz file", "unpack it first"},
    {0, "BZh", "a bzip2 file", "unpack it first"},
    {0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"},
    {0, "Rar!", "a RAR archive", "unpack it first"},
    {0, "\x93NUMPY", "a NumPy array"},
    {0, "\x89HDF", "an HDF5 file"},
    {0,
     "\x7f"
     "ELF",
     "a program"},
};

bool has_at(std::string_view text, size_t offset, std::string_view bytes) {
  return text.size() >= offset + bytes.size() && text.substr(offset, bytes.size()) == bytes;
}

/// PyTorch's first format was a tar archive of the members sys_info, pickle, tensors, storages.
std::string describe_tar(std::string_view head) {
  std::string_view member = head.substr(0, head.find('\0'));
  for (std::string_view name : {"sys_info", "pickle", "tensors", "storages"}) {
    if (member == name || member == fmt::format("./{}", name)) {
      return "a tar checkpoint of PyTorch before 0.1.10: load it with an old PyTorch and save it again";
    }
  }
  return fmt::format("a tar archive (its first member is '{}'): unpack it first", printable(member));
}

/// The header of a safetensors file, JSON, or as much of it as is searched; empty for any other file.
std::string_view safetensors_header(std::string_view file) {
  uint64_t length = 0;
  if (file.size() < 10) return "";
  std::memcpy(&length, file.data(), sizeof(length));
  if (length < 2 || length > file.size() - 8 || file[8] != '{' || (file[9] != '"' && file[9] != '}'))
    return "";
  return file.substr(8, std::min<uint64_t>(length, max_header));
}

std::string describe_safetensors(std::string_view header) {
  if (header.find(fmt::format("\"{}\"", model_format_key)) != std::string_view::npos) {
    return "is converted already: use it as it is";
  }
  return fmt::format("a safetensors file, not a PyTorch checkpoint: {}", original);
}

/// Text has no control characters but white space. The end may cut a character of several bytes.
bool is_text(std::string_view head) {
  return std::all_of(head.begin(), head.end(), [](char c) {
    auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 ? byte != 0x7f : byte == '\n' || byte == '\r' || byte == '\t';
  });
}

std::string describe_text(std::string_view head) {
  std::string_view start = head.substr(std::min(head.find_first_not_of(" \r\n\t\xef\xbb\xbf"), head.size()));
  std::string lower(start.substr(0, 16));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<?xml")) {
    return "a web page, not a PyTorch checkpoint: the download needs another address, or a login";
  }
  return fmt::format("a text file, not a PyTorch checkpoint (it begins '{}'): {}", printable(start, 32),
                     original);
}

}  // namespace

std::string describe_foreign_file(std::span<const std::byte> file) {
  std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  std::string_view head = text.substr(0, 512);
  if (head.empty()) return "the file is empty: copy or download it again";
  for (const Magic& magic : magics) {
    if (has_at(head, magic.offset, magic.bytes)) {
      return fmt::format("{}, not a PyTorch checkpoint: {}", magic.what, magic.advice);
    }
  }
  if (has_at(head, 257, "ustar")) return describe_tar(head);
  if (auto header = safetensors_header(text); !header.empty()) return describe_safetensors(header);
  if (head.find_first_not_of('\0') == std::string_view::npos) {
    return "the file begins with zeros: an unfinished download, get it again";
  }
  if (is_text(head)) return describe_text(head);
  if (has_at(head, 0, "\x80") && head.size() > 1 && head[1] >= 2 && head[1] <= 5) {
    return "a pickle, but not one that torch.save wrote: save the tensors with torch.save";
  }
  return fmt::format("not a PyTorch checkpoint (neither a zip archive nor a file of PyTorch before 1.6): {}",
                     original);
}

}  // namespace rwkv
