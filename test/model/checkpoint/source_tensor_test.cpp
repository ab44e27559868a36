// Copying elements out of strided, unaligned views.
#include "model/checkpoint/source_tensor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "core/half.h"
#include "test/model/checkpoint/build.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

/// A storage whose element i has the bits i + 1, at an odd address.
struct Storage {
  explicit Storage(size_t elements, size_t size) : bytes(elements * size + 1) {
    for (size_t i = 0; i < elements; i++) {
      uint32_t bits = static_cast<uint32_t>(i) + 1;
      std::memcpy(bytes.data() + 1 + i * size, &bits, size);
    }
  }
  std::vector<std::byte> bytes;
};

SourceTensor view(const Storage& storage, DType dtype, std::vector<int64_t> sizes,
                  std::vector<int64_t> strides, int64_t offset = 0) {
  SourceTensor tensor;
  tensor.dtype = dtype;
  tensor.sizes = std::move(sizes);
  tensor.strides = std::move(strides);
  tensor.data = storage.bytes.data() + 1 + static_cast<size_t>(offset) * size_of(dtype);
  return tensor;
}

/// The bits of every element, one index at a time.
std::vector<uint32_t> naive(const SourceTensor& tensor) {
  std::vector<uint32_t> all;
  size_t size = size_of(tensor.dtype);
  for (uint64_t flat = 0; flat < tensor.elements(); flat++) {
    uint64_t rest = flat, offset = 0;
    for (size_t d = tensor.sizes.size(); d-- > 0;) {
      offset += rest % static_cast<uint64_t>(tensor.sizes[d]) * static_cast<uint64_t>(tensor.strides[d]);
      rest /= static_cast<uint64_t>(tensor.sizes[d]);
    }
    uint32_t bits = 0;
    std::memcpy(&bits, tensor.data + offset * size, size);
    all.push_back(bits);
  }
  return all;
}

float as_float(DType dtype, uint32_t bits) {
  if (dtype == DType::f16) return to_float(Half{static_cast<uint16_t>(bits)});
  if (dtype == DType::bf16) return to_float(BFloat16{static_cast<uint16_t>(bits)});
  return std::bit_cast<float>(bits);
}

void check_all_ranges(const SourceTensor& tensor) {
  auto expected = naive(tensor);
  size_t size = size_of(tensor.dtype);
  for (uint64_t first = 0; first <= expected.size(); first++) {
    for (uint64_t count : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{7}, expected.size() - first}) {
      if (count > expected.size() - first) continue;
      std::vector<std::byte> raw(count * size);
      std::vector<float> floats(count);
      copy_elements(tensor, first, count, raw.data());
      copy_elements_f32(tensor, first, count, floats.data());
      for (uint64_t i = 0; i < count; i++) {
        uint32_t bits = 0;
        std::memcpy(&bits, raw.data() + i * size, size);
        REQUIRE(bits == expected[first + i]);
        REQUIRE(std::bit_cast<uint32_t>(floats[i]) ==
                std::bit_cast<uint32_t>(as_float(tensor.dtype, expected[first + i])));
      }
    }
  }
}

TEST_CASE("any range of any view is copied in the order of a dense tensor") {
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Storage storage(200, size_of(dtype));
    check_all_ranges(view(storage, dtype, {}, {}, 3));
    check_all_ranges(view(storage, dtype, {17}, {1}, 5));
    check_all_ranges(view(storage, dtype, {4, 5}, {5, 1}));
    check_all_ranges(view(storage, dtype, {5, 4}, {1, 5}));
    check_all_ranges(view(storage, dtype, {4, 5}, {8, 1}, 2));
    check_all_ranges(view(storage, dtype, {4, 5}, {16, 3}));
    check_all_ranges(view(storage, dtype, {3, 4}, {0, 1}));
    check_all_ranges(view(storage, dtype, {3, 4}, {1, 0}));
    check_all_ranges(view(storage, dtype, {3, 4}, {0, 0}));
    check_all_ranges(view(storage, dtype, {2, 3, 4}, {12, 4, 1}));
    check_all_ranges(view(storage, dtype, {4, 2, 3}, {1, 12, 4}));
    check_all_ranges(view(storage, dtype, {2, 3, 4}, {24, 4, 1}));
    check_all_ranges(view(storage, dtype, {2, 3, 4}, {12, 4, 2}));
    check_all_ranges(view(storage, dtype, {1, 3, 1, 4, 1}, {99, 4, 77, 1, 55}));
    check_all_ranges(view(storage, dtype, {2, 2, 2, 2, 2}, {1, 2, 4, 8, 16}));
  }
}

TEST_CASE("nothing is read from a tensor without elements") {
  SourceTensor tensor;
  tensor.sizes = {3, 0, 2};
  tensor.strides = {0, 0, 0};
  CHECK(tensor.elements() == 0);
  copy_elements(tensor, 0, 0, nullptr);
  copy_elements_f32(tensor, 0, 0, nullptr);
}

TEST_CASE("a small storage may stand for many elements") {
  Storage storage(1, 4);
  SourceTensor tensor = view(storage, DType::f32, {int64_t{1} << 31, int64_t{1} << 31}, {0, 0});
  std::vector<float> values(1000);
  copy_elements_f32(tensor, tensor.elements() - values.size(), values.size(), values.data());
  CHECK(values.back() == std::bit_cast<float>(1u));
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
