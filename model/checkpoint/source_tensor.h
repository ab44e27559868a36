// A tensor of a checkpoint where it lies in the mapped file: any strides, any alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "model/checkpoint/state_dict.h"

namespace rwkv {

constexpr size_t source_tensor_max_rank = 64;  ///< as in PyTorch
constexpr size_t no_record = SIZE_MAX;

/// A strided view into the mapped file. Every index within `sizes` lies inside the storage, and the number of
/// elements fits int64_t; but strides of 0 let a small storage stand for any number of elements, so compare
/// the sizes with what is expected before allocating.
struct SourceTensor {
  std::string name;
  DType dtype = DType::f32;  ///< f32, f16 or bf16
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;     ///< in elements, not negative
  const std::byte* data = nullptr;  ///< element [0, 0, ...]; may be unaligned; not to be read if a size is 0
  size_t record = no_record;        ///< the record of the archive that holds it: see Checkpoint::check

  [[nodiscard]] uint64_t elements() const {
    uint64_t product = 1;
    for (int64_t size : sizes) product *= static_cast<uint64_t>(size);
    return product;
  }
};

/// Checks the description of a tensor against its storage's bytes. Throws Error; `path` begins the message.
SourceTensor view_storage(const StateTensor& tensor, std::span<const std::byte> storage,
                          const std::string& path);

/// Copies elements [first, first + count), counted in the order of a dense tensor (last index fastest), in
/// the tensor's own type. `out` has room for count * size_of(dtype) bytes.
void copy_elements(const SourceTensor& tensor, uint64_t first, uint64_t count, std::byte* out);

/// The same elements as fp32, exactly.
void copy_elements_f32(const SourceTensor& tensor, uint64_t first, uint64_t count, float* out);

}  // namespace rwkv
