// Names what a file is that is no PyTorch checkpoint, by its content.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace rwkv {

/// What stands in the file and what to do about it, for a message: "a GGUF model, not a PyTorch checkpoint:
/// ...". Reads at most the first megabyte.
std::string describe_foreign_file(std::span<const std::byte> file);

}  // namespace rwkv
