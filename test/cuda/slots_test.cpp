// Memory that is filled while operators run.
#include "cuda/slots.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

constexpr int64_t width = 200;

/// Vectors that pass through slots, one after the other, each the weight of a normalization of the same row.
/// Results are compared with the same normalizations by resident vectors.
void check_stream(Device& device, int slots, int64_t parts) {
  auto ops = device.make_ops();
  Random random(static_cast<uint64_t>(parts));
  std::vector<float> values = random.normals(parts * width), zeros(width), row = random.normals(width);
  Buffer staging = device.allocate_staging(values.size() * 4);
  std::ranges::copy(values, reinterpret_cast<float*>(staging.data()));
  Buffer slot_memory = device.allocate(static_cast<size_t>(slots * width) * 4);
  Buffer results = device.allocate(values.size() * 4), expected = device.allocate(values.size() * 4);
  DeviceTensor x(device, {1, width}, row), bias(device, {width}, zeros),
      resident(device, {parts, width}, values);
  auto rows_of_results = [&](const Buffer& b) { return matrix_view(b.data(), DType::f32, parts, width); };

  auto filled = device.make_slots(*ops, slots);
  auto slot_data = [&](int64_t part) { return slot_memory.data() + part % slots * width * 4; };
  auto fill = [&](int64_t part) {
    filled->fill(static_cast<int>(part % slots), slot_data(part), staging.data() + part * width * 4,
                 width * 4);
  };
  for (int64_t part = 0; part < std::min<int64_t>(slots, parts); part++) fill(part);
  for (int64_t part = 0; part < parts; part++) {
    auto slot = static_cast<int>(part % slots);
    filled->acquire(slot);
    Tensor weight = vector_view(slot_data(part), DType::f32, width);
    ops->layer_norm(rows_of_results(results).slice_rows(part, 1), x, {weight, bias});
    filled->release(slot);
    if (part + slots < parts) fill(part + slots);
  }
  std::vector<float> streamed(values.size()), separate(values.size());
  ops->download(streamed.data(), rows_of_results(results));
  for (int64_t part = 0; part < parts; part++) {
    Tensor weight = vector_view(resident.view().row(part), DType::f32, width);
    ops->layer_norm(rows_of_results(expected).slice_rows(part, 1), x, {weight, bias});
  }
  ops->download(separate.data(), rows_of_results(expected));
  CHECK(same_bits(streamed, separate));
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("slots: what was filled is there when it is acquired, and stays until it is released") {
  on_device(16, [] {
    auto device = cuda::open(0);
    for (int slots : {1, 2, 3}) {
      CAPTURE(slots);
      check_stream(*device, slots, 9);
    }
  });
}

TEST_CASE("slots: products that wait for the next operator are readers, too") {
  on_device(16, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    Random random(3);
    PackedMatrix first({Layout::cuda_blocks, DType::f32, 40, 64}, random.normals(40 * 64));
    PackedMatrix second({Layout::cuda_blocks, DType::f32, 40, 64}, random.normals(40 * 64));
    size_t bytes = first.bytes.size();
    Buffer staging = device->allocate_staging(2 * bytes), slot = device->allocate(bytes);
    std::ranges::copy(first.bytes, staging.data());
    std::ranges::copy(second.bytes, staging.data() + bytes);
    DeviceTensor x(*device, {1, 64}, random.normals(64));
    std::vector<float> nothing(40);
    DeviceTensor out(*device, {1, 40}, nothing), out2(*device, {1, 40}, nothing),
        alone(*device, {1, 40}, nothing);
    auto slots = device->make_slots(*ops, 1);
    auto multiply = [&](const Tensor& to, const PackedMatrix& m, const std::byte* data) {
      const Product product[] = {{x, packed_view(m.layout, data), to}};
      ops->matmul(product);
    };
    slots->fill(0, slot.data(), staging.data(), bytes);
    slots->acquire(0);
    multiply(out, first, slot.data());
    slots->release(0);
    slots->fill(0, slot.data(), staging.data() + bytes, bytes);
    slots->acquire(0);
    multiply(out2, second, slot.data());
    slots->release(0);
    ops->synchronize();
    for (auto [matrix, result] : {std::pair(&first, &out), std::pair(&second, &out2)}) {
      DeviceMatrix resident(*device, *matrix);
      const Product product[] = {{x, resident, alone}};
      ops->matmul(product);
      ops->synchronize();
      CHECK(same_bits(result->values(), alone.values()));
    }
  });
}

TEST_CASE("slots: filled and never acquired, they go when the copies are done") {
  on_device(4, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    Buffer staging = device->allocate_staging(4000), memory = device->allocate(4000);
    std::ranges::fill(staging.bytes(), std::byte{7});
    auto slots = device->make_slots(*ops, 2);
    for (int i = 0; i < 5; i++) slots->fill(i % 2, memory.data() + i % 2 * 2000, staging.data(), 2000);
    slots.reset();
    std::vector<std::byte> filled(4000);
    device->copy_out(filled.data(), memory.data(), 4000);
    CHECK(std::ranges::all_of(filled, [](std::byte b) { return b == std::byte{7}; }));
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
