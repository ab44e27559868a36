#include "model/checkpoint/source_tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "core/checked.h"
#include "core/half.h"

namespace rwkv {
namespace {

/// Dimensions as they lie in memory, the innermost first, merged where one continues the other.
struct Dimensions {
  struct Dimension {
    uint64_t size, stride, index;
  };
  std::array<Dimension, source_tensor_max_rank> all{};
  size_t rank = 0;
};

Dimensions dimensions_of(const SourceTensor& tensor) {
  Dimensions d;
  for (size_t i = tensor.sizes.size(); i-- > 0;) {
    auto size = static_cast<uint64_t>(tensor.sizes[i]), stride = static_cast<uint64_t>(tensor.strides[i]);
    if (size == 1) continue;
    if (d.rank > 0 && stride == d.all[d.rank - 1].size * d.all[d.rank - 1].stride) {
      d.all[d.rank - 1].size *= size;
    } else {
      d.all[d.rank++] = {size, stride, 0};
    }
  }
  if (d.rank == 0) d.all[d.rank++] = {1, 1, 0};
  return d;
}

float convert(float value, float) { return value; }
float convert(Half value, float) { return to_float(value); }
float convert(BFloat16 value, float) { return to_float(value); }
Half convert(Half value, Half) { return value; }
BFloat16 convert(BFloat16 value, BFloat16) { return value; }

template <class From, class To>
void copy_run(const std::byte* source, uint64_t stride, uint64_t count, std::byte* out) {
  for (uint64_t i = 0; i < count; i++) {
    From value;
    std::memcpy(&value, source + i * stride * sizeof(From), sizeof(From));
    To converted = convert(value, To());
    std::memcpy(out + i * sizeof(To), &converted, sizeof(To));
  }
}

template <class From, class To>
void copy_strided(const SourceTensor& tensor, uint64_t first, uint64_t count, std::byte* out) {
  assert(range_fits(first, count, tensor.elements()));
  if (count == 0) return;
  Dimensions d = dimensions_of(tensor);
  for (size_t i = 0; i < d.rank; i++) {
    d.all[i].index = first % d.all[i].size;
    first /= d.all[i].size;
  }
  auto& inner = d.all[0];
  while (count > 0) {
    uint64_t offset = 0;
    for (size_t i = 0; i < d.rank; i++) offset += d.all[i].index * d.all[i].stride;
    uint64_t run = std::min(count, inner.size - inner.index);
    const std::byte* source = tensor.data + offset * sizeof(From);
    // With a constant stride the compiler vectorises the loop.
    if (inner.stride == 1) {
      copy_run<From, To>(source, 1, run, out);
    } else {
      copy_run<From, To>(source, inner.stride, run, out);
    }
    out += run * sizeof(To);
    count -= run;
    inner.index += run;
    for (size_t i = 0; i + 1 < d.rank && d.all[i].index == d.all[i].size; i++) {
      d.all[i].index = 0;
      d.all[i + 1].index++;
    }
  }
}

}  // namespace

SourceTensor view_storage(const StateTensor& tensor, std::span<const std::byte> storage,
                          const std::string& path) {
  std::string what = fmt::format("{}: tensor '{}'", path, printable(tensor.name));
  const StorageId& id = tensor.storage;
  uint64_t element = id.type->size;
  if (id.elements > storage.size() / element || id.elements * element != storage.size()) {
    throw Error(fmt::format("{}: its storage '{}' should have {} elements of {} bytes, but has {} bytes",
                            what, printable(id.key), id.elements, element, storage.size()));
  }
  if (!range_fits(id.view_begin, id.view_elements, id.elements)) {
    throw Error(what + ": it views elements beyond its storage");
  }
  if (tensor.sizes.size() != tensor.strides.size() || tensor.sizes.size() > source_tensor_max_rank) {
    throw Error(
        fmt::format("{}: it has {} sizes and {} strides", what, tensor.sizes.size(), tensor.strides.size()));
  }
  uint64_t elements = checked_product(tensor.sizes, what.c_str());
  uint64_t last = tensor.offset;
  for (size_t i = 0; i < tensor.sizes.size(); i++) {
    if (tensor.strides[i] < 0) throw Error(what + ": it has a negative stride");
    if (elements == 0) continue;
    auto steps = static_cast<uint64_t>(tensor.sizes[i] - 1),
         stride = static_cast<uint64_t>(tensor.strides[i]);
    last = checked_add(last, checked_mul(steps, stride, what.c_str()), what.c_str());
  }
  if (elements > 0 && last >= id.view_elements) {
    throw Error(fmt::format("{}: its last element would be number {} of a storage of {}", what, last,
                            id.view_elements));
  }
  const std::byte* data = storage.data();
  if (elements > 0) data += (id.view_begin + tensor.offset) * element;
  return {tensor.name, *id.type->dtype, tensor.sizes, tensor.strides, data, no_record};
}

void copy_elements(const SourceTensor& tensor, uint64_t first, uint64_t count, std::byte* out) {
  switch (tensor.dtype) {
    case DType::f16:
      return copy_strided<Half, Half>(tensor, first, count, out);
    case DType::bf16:
      return copy_strided<BFloat16, BFloat16>(tensor, first, count, out);
    default:
      return copy_strided<float, float>(tensor, first, count, out);
  }
}

void copy_elements_f32(const SourceTensor& tensor, uint64_t first, uint64_t count, float* out) {
  auto* bytes = reinterpret_cast<std::byte*>(out);
  switch (tensor.dtype) {
    case DType::f16:
      return copy_strided<Half, float>(tensor, first, count, bytes);
    case DType::bf16:
      return copy_strided<BFloat16, float>(tensor, first, count, bytes);
    default:
      return copy_strided<float, float>(tensor, first, count, bytes);
  }
}

}  // namespace rwkv
