// Devices that reach each other's memory, and devices that don't.
#include <doctest/doctest.h>

#include "cuda/cuda.h"
#include "cuda/emulator/control.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/receive_case.h"

namespace rwkv::test {

TEST_SUITE_BEGIN("cuda");

TEST_CASE("receive: directly where devices reach each other, otherwise through host memory") {
  on_devices({.count = 3}, 8, [] {
    for (bool reachable : {true, false}) {
      CAPTURE(reachable);
      emulator::Settings settings = emulator::settings();
      settings.peer_access = reachable;
      emulator::configure(settings);
      auto first = cuda::open(0), second = cuda::open(1), third = cuda::open(2);
      check_receive(*second, *first, 300);
      check_receive(*first, *third, 40000);  // in several pieces
      CHECK((emulator::counters().peer_bytes > 0) == reachable);
    }
  });
}

TEST_CASE("receive: through host memory when reaching the other device is refused after all") {
  on_devices({.count = 2}, 1, [] {
    auto first = cuda::open(0), second = cuda::open(1);
    auto from = first->make_ops(), to = second->make_ops();
    Buffer a = first->allocate(400), b = second->allocate(400);
    Tensor sent = vector_view(a.data(), DType::f32, 100), received = vector_view(b.data(), DType::f32, 100);
    std::vector<float> values = Random(1).normals(100), read(100);
    from->upload(sent, values.data());
    // Calls of receive(): both set their device, then the question, then this one.
    emulator::fail_call(emulator::Operation::any, 4, cudaErrorPeerAccessUnsupported);
    to->receive(received, *from, sent);
    to->download(read.data(), received);
    CHECK(same_bits(read, values));
    CHECK(emulator::counters().peer_bytes == 0);
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
