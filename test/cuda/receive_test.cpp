// Tensors that go from one CUDA device or queue to another.
#include <doctest/doctest.h>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/receive_case.h"

namespace rwkv::test {

TEST_SUITE_BEGIN("cuda");

TEST_CASE("receive: from another device") {
  on_devices({.count = 2}, 16, [] {
    auto from = cuda::open(0), to = cuda::open(1);
    check_receive(*from, *to, 500);
    check_receive(*to, *from, 500);
    check_receive(*from, *to, 100000);
  });
}

TEST_CASE("receive: from another queue of the device, and from itself") {
  on_device(16, [] {
    auto device = cuda::open(0);
    check_receive(*device, *device, 500);
    auto ops = device->make_ops();
    Buffer a = device->allocate(400), b = device->allocate(400);
    Tensor from = vector_view(a.data(), DType::f32, 100), to = vector_view(b.data(), DType::f32, 100);
    std::vector<float> values = Random(5).normals(100), read(100);
    ops->upload(from, values.data());
    ops->receive(to, *ops, from);
    ops->download(read.data(), to);
    CHECK(same_bits(read, values));
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
