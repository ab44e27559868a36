// Memory of a CUDA device, and transfers.
#include "cuda/cuda.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

#include "cpu/cpu.h"
#include "test/cuda/device_under_test.h"
#include "test/model/memory_file.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

std::vector<std::byte> pattern(size_t bytes, int seed) {
  std::vector<std::byte> values(bytes);
  for (size_t i = 0; i < bytes; i++) values[i] = static_cast<std::byte>(i * 7 + i / 251 + seed);
  return values;
}

std::vector<std::byte> content(Device& device, const Buffer& buffer) {
  std::vector<std::byte> bytes(buffer.size());
  device.copy_out(bytes.data(), buffer.data(), bytes.size());
  return bytes;
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("device: what it is; there are no others") {
  on_device(1, [] {
    int count = cuda::device_count();
    REQUIRE(count >= 1);
    CHECK(cuda::missing() == "");
    auto device = cuda::open(count - 1);
    CHECK(device->id() == count);
    CHECK(device->threads() == 1);
    CHECK(device->description().starts_with("cuda:" + std::to_string(count - 1) + " ("));
    for (int index : {-1, count, 99}) {
      CHECK(error_of([&] {
              cuda::open(index);
            }).starts_with("cuda:" + std::to_string(index) + ": there is no"));
    }
  });
}

TEST_CASE("device: memory is aligned, zero, and copied in both directions") {
  on_device(4, [] {
    auto device = cuda::open(0);
    Buffer a = device->allocate(1000), b = device->allocate(1000);
    CHECK(reinterpret_cast<uintptr_t>(a.data()) % 256 == 0);
    CHECK(content(*device, a) == std::vector<std::byte>(1000));
    std::vector<std::byte> values = pattern(1000, 1);
    device->copy_in(a.data(), values.data(), 1000);
    CHECK(content(*device, a) == values);
    device->copy(b.data(), a.data(), 999);
    values.back() = std::byte{0};
    CHECK(content(*device, b) == values);
  });
}

TEST_CASE("device: nothing can be allocated and copied, too") {
  on_device(1, [] {
    auto device = cuda::open(0);
    Buffer nothing = device->allocate(0);
    CHECK(nothing.data() != nullptr);
    CHECK(nothing.size() == 0);
    device->copy_in(nothing.data(), nullptr, 0);
    device->copy_out(nullptr, nothing.data(), 0);
    device->copy(nothing.data(), nothing.data(), 0);
    CHECK(device->allocate_staging(0).size() == 0);
  });
}

TEST_CASE("device: free memory is what is not allocated") {
  on_device(1, [] {
    auto device = cuda::open(0);
    uint64_t before = device->free_memory();
    {
      Buffer buffer = device->allocate(64 << 20);
      CHECK(device->free_memory() + (64 << 20) <= before);
    }
    CHECK(device->free_memory() + (32 << 20) > before);  // on a real one others allocate, too
    if (emulated()) CHECK(device->free_memory() == before);
  });
}

TEST_CASE("device: pages of a file are pinned in place, once, until the result is gone") {
  on_device(1, [] {
    auto device = cuda::open(0);
    std::vector<std::byte> values = pattern(3 * 4096 + 100, 2);
    MemoryFile file({reinterpret_cast<const char*>(values.data()), values.size()});
    MappedFile mapped = file.map();
    std::span<const std::byte> part = mapped.bytes().subspan(1000, 8000);
    Buffer copy = device->allocate(part.size());
    for (int i = 0; i < 2; i++) {
      Buffer pinned = device->pin(part);
      if (!emulated() && pinned.data() == nullptr) return;  // such a driver: streaming copies, then
      REQUIRE(pinned.data() == part.data());
      CHECK(pinned.size() == part.size());
      CHECK(device->pin(part).data() == nullptr);  // refused: it is already
      device->copy_in(copy.data(), pinned.data(), pinned.size());
      CHECK(std::ranges::equal(content(*device, copy), part));
    }
  });
}

TEST_CASE("device: each of several has memory of its own") {
  on_devices({.count = 2}, 4, [] {
    auto first = cuda::open(0), second = cuda::open(1);
    Buffer a = first->allocate(500), b = second->allocate(500);
    std::vector<std::byte> of_a = pattern(500, 3), of_b = pattern(500, 4);
    first->copy_in(a.data(), of_a.data(), 500);
    second->copy_in(b.data(), of_b.data(), 500);
    CHECK(content(*first, a) == of_a);
    CHECK(content(*second, b) == of_b);
  });
}

TEST_CASE("transfers: host memory may change at once, whatever the size") {
  on_device(8, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    for (int64_t count : {0, 1, 1000, 4096, 40000, 1300000}) {
      CAPTURE(count);
      Buffer memory = device->allocate(static_cast<size_t>(count) * 4);
      Tensor t = vector_view(memory.data(), DType::f32, count);
      std::vector<float> values = Random(static_cast<uint64_t>(count)).normals(count);
      std::vector<float> host = values, read(values.size(), -1);
      ops->upload(t, host.data());
      std::ranges::fill(host, 0.0f);
      ops->download(read.data(), t);
      CHECK(same_bits(read, values));
    }
  });
}

TEST_CASE("transfers: many small ones before anything is waited for") {
  on_device(8, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    ops->reserve({.transfer_bytes = 400});
    constexpr int64_t rows = 40, width = 100;
    Buffer memory = device->allocate(rows * width * 4);
    Tensor t = matrix_view(memory.data(), DType::f32, rows, width);
    std::vector<float> values = Random(1).normals(rows * width), read(values.size());
    for (int64_t i = 0; i < rows; i++) {
      std::vector<float> row(values.begin() + i * width, values.begin() + (i + 1) * width);
      ops->upload(t.slice_rows(i, 1), row.data());
    }
    // More than a piece: the ring changes while its copies are under way.
    std::vector<float> last(values.end() - 20 * width, values.end());
    ops->upload(t.slice_rows(rows - 20, 20), last.data());
    ops->download(read.data(), t);
    CHECK(same_bits(read, values));
  });
}

TEST_CASE("embed: a chunk larger than a piece, and the same buffer again") {
  on_device(4, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    constexpr int64_t width = 3000, vocabulary = 7, count = 100;
    std::vector<float> values = Random(2).normals(vocabulary * width);
    Tensor table = matrix_view(values.data(), DType::f32, vocabulary, width);
    Buffer memory = device->allocate(count * width * 4);
    std::vector<int32_t> tokens(count);
    for (int turn = 0; turn < 3; turn++) {
      std::vector<float> expected, read(count * width);
      for (size_t i = 0; i < count; i++) {
        tokens[i] = static_cast<int32_t>((i * 3 + i / 5 + static_cast<size_t>(turn)) % vocabulary);
        auto row = values.begin() + tokens[i] * width;
        expected.insert(expected.end(), row, row + width);
      }
      Tensor out = matrix_view(memory.data(), DType::f32, count, width);
      ops->embed(out, table, tokens);
      ops->download(read.data(), out);
      CHECK(same_bits(read, expected));
    }
  });
}

TEST_CASE("operators of another kind of device are refused") {
  on_device(1, [] {
    auto device = cuda::open(0), host = cpu::open(1);
    auto ops = device->make_ops(), others = host->make_ops();
    Buffer memory = device->allocate(40);
    Tensor t = vector_view(memory.data(), DType::f32, 10);
    CHECK(error_of([&] { ops->receive(t, *others, t); }).starts_with("receive: "));
    CHECK(error_of([&] { device->make_slots(*others, 2); }).starts_with("slots "));
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
