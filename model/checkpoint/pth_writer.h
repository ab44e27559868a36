// Writes .pth files that torch.load reads, weights_only too: small ones, such as states.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rwkv {

/// A dense fp32 tensor; the values must be as many as the sizes say.
struct PthTensor {
  std::string name;
  std::vector<int64_t> sizes;
  std::span<const float> values;
};

/// What torch.load returns.
enum class PthRoot : uint8_t {
  list,  ///< of the tensors, in order, without their names
  dict,  ///< by name
};

/// An archive as torch.save lays it out: uncompressed, each storage at a multiple of 64 bytes. Throws Error;
/// more than 4 GB are too much for it.
void write_pth(const std::string& path, const std::vector<PthTensor>& tensors, PthRoot root);

}  // namespace rwkv
