// Streams: each mistake of ordering gives wrong numbers or a report, and its corrected twin never does.
#include "test/cuda/emulator/program.h"

namespace rwkv::test::emulated {

namespace {

// --- Each takes `correct` and says whether the numbers are right ---

// The kernel must wait for the copy that fills its input.
bool wait_for_filled(bool correct) {
  Program p;
  p.fill_pinned(3);
  start_fill(p.compute, p.sum, 1);
  cudaMemcpyAsync(p.slot, p.pinned, bytes, cudaMemcpyHostToDevice, p.transfer);
  cudaEventRecord(p.filled, p.transfer);
  if (correct) cudaStreamWaitEvent(p.compute, p.filled);
  p.start_add(p.compute);
  return sum_is(p, 4);
}

// The copy must wait for the kernel that still reads what it overwrites.
bool wait_for_free(bool correct) {
  Program p;
  start_fill(p.compute, p.slot, 5);
  start_fill(p.compute, p.sum, 1);
  cudaEventRecord(p.filled, p.compute);
  cudaStreamWaitEvent(p.transfer, p.filled);
  p.start_add(p.compute);
  cudaEventRecord(p.free, p.compute);
  if (correct) cudaStreamWaitEvent(p.transfer, p.free);
  cudaMemsetAsync(p.slot, 0, bytes, p.transfer);
  return sum_is(p, 6);
}

// An event that is recorded after the wait for it does nothing.
bool record_before_wait(bool correct) {
  Program p;
  p.fill_pinned(3);
  start_fill(p.compute, p.sum, 1);
  cudaMemcpyAsync(p.slot, p.pinned, bytes, cudaMemcpyHostToDevice, p.transfer);
  if (correct) cudaEventRecord(p.filled, p.transfer);
  cudaStreamWaitEvent(p.compute, p.filled);
  if (!correct) cudaEventRecord(p.filled, p.transfer);
  p.start_add(p.compute);
  return sum_is(p, 4);
}

bool reuse_pinned(bool correct) {
  Program p;
  start_fill(p.compute, p.sum, 1);
  for (const float value : {3.0f, 4.0f}) {
    if (correct) cudaStreamSynchronize(p.compute);
    p.fill_pinned(value);
    cudaMemcpyAsync(p.slot, p.pinned, bytes, cudaMemcpyHostToDevice, p.compute);
    p.start_add(p.compute);
  }
  return sum_is(p, 8);
}

bool read_result_early(bool correct) {
  Program p;
  p.fill_pinned(0);
  start_fill(p.compute, p.slot, 7);
  cudaMemcpyAsync(p.pinned, p.slot, bytes, cudaMemcpyDeviceToHost, p.compute);
  if (correct) cudaStreamSynchronize(p.compute);
  return p.pinned[count - 1] == 7;
}

bool free_in_use(bool correct) {
  Program p;
  start_fill(p.compute, p.slot, 3);
  start_fill(p.compute, p.sum, 1);
  p.start_add(p.compute);
  if (correct) cudaStreamSynchronize(p.compute);
  cudaFree(p.slot);
  return sum_is(p, 4);
}

bool free_under_copy(bool correct) {
  Program p;
  p.fill_pinned(3);
  start_fill(p.compute, p.sum, 1);
  cudaMemcpyAsync(p.slot, p.pinned, bytes, cudaMemcpyHostToDevice, p.compute);
  p.start_add(p.compute);
  if (correct) cudaDeviceSynchronize();
  cudaFreeHost(p.pinned);
  return sum_is(p, 4);
}

bool unregister_under_copy(bool correct) {
  Program p;
  std::vector<float> host(count, 3);
  cudaHostRegister(host.data(), bytes, cudaHostRegisterDefault);
  start_fill(p.compute, p.sum, 1);
  cudaMemcpyAsync(p.slot, host.data(), bytes, cudaMemcpyHostToDevice, p.compute);
  p.start_add(p.compute);
  if (correct) cudaStreamSynchronize(p.compute);
  cudaHostUnregister(host.data());
  return sum_is(p, 4);
}

// Streams that do not block the default stream have no order with it.
bool default_stream_order(bool correct) {
  Program p(correct ? cudaStreamDefault : cudaStreamNonBlocking);
  start_fill(p.compute, p.slot, 3);
  start_fill(nullptr, p.sum, 1);
  launch_in(nullptr, add, 1, count, 0, p.sum, static_cast<const float*>(p.slot));
  p.start_add(p.compute);
  return sum_is(p, 7);
}

struct Case {
  std::string name;
  bool (*run)(bool correct);
  bool found_late, found_rushing;  // which policy finds it at once
};
const Case cases[] = {
    {"missing wait for a copy", wait_for_filled, true, false},
    {"missing wait before overwriting", wait_for_free, false, true},
    {"record behind the wait", record_before_wait, true, false},
    {"pinned memory reused too early", reuse_pinned, true, true},
    {"result read too early", read_result_early, true, true},
    {"memory freed in use", free_in_use, true, true},
    {"pinned memory freed in use", free_under_copy, true, true},
    {"memory unregistered in use", unregister_under_copy, true, true},
    {"no order with the default stream", default_stream_order, true, true},
};

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("each mistake of ordering is found late or rushing, and by random seeds; corrected, all is well") {
  for (const Case& one : cases) {
    CAPTURE(one.name);
    const auto right = [&](bool correct, Streams streams, uint64_t seed) {
      emulator::configure(quiet(seed, Order::ascending, streams));
      return one.run(correct);
    };
    CHECK(one.found_late == !right(false, Streams::late, 1));
    CHECK(one.found_rushing == !right(false, Streams::rush, 1));
    int found = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) found += right(false, Streams::random, seed) ? 0 : 1;
    CHECK(found >= 20);
    for (const Streams streams : {Streams::eager, Streams::late, Streams::rush})
      CHECK(right(true, streams, 1));
    for (uint64_t seed = 1; seed <= 1000; seed++) {
      CAPTURE(seed);
      REQUIRE_MESSAGE(right(true, Streams::random, seed), emulator::report());
    }
  }
}

TEST_CASE("memory freed in use is reported by the kernel's or the copy's name") {
  emulator::configure(quiet(1, Order::ascending, Streams::late));
  CHECK(!free_in_use(false));
  CHECK_MESSAGE(has(emulator::report(), "kernel rwkv::test::emulated::fill"), emulator::report());
  CHECK_MESSAGE(has(emulator::report(), "freed memory, byte 0 of allocation 1"), emulator::report());
  emulator::configure(quiet(1, Order::ascending, Streams::late));
  CHECK(!free_under_copy(false));
  CHECK_MESSAGE(has(emulator::report(), "a copy of 256 bytes from freed memory"), emulator::report());
  CHECK(has(emulator::report(), "released before the work was done"));
}

TEST_CASE("the same seed gives the same run") {
  const auto run = [](uint64_t seed) {
    std::string results;
    for (uint64_t i = 0; i < 32; i++) {
      emulator::configure(quiet(seed + i));
      results += wait_for_filled(false) ? '1' : '0';
      emulator::configure(quiet(seed + i));
      results += wait_for_free(false) ? '1' : '0';
    }
    return results;
  };
  CHECK(run(1) == run(1));
  CHECK(run(1) != run(100));
}

TEST_CASE("a copy from pageable memory takes what is there at the call, one to it returns when done") {
  for (const Streams streams : policies) {
    emulator::configure(quiet(1, Order::ascending, streams));
    Program p;
    std::vector<float> host(count, 3);
    cudaMemcpyAsync(p.slot, host.data(), bytes, cudaMemcpyHostToDevice, p.compute);
    std::fill(host.begin(), host.end(), 0.0f);
    start_fill(p.compute, p.sum, 1);
    p.start_add(p.compute);
    cudaMemcpyAsync(host.data(), p.sum, bytes, cudaMemcpyDeviceToHost, p.compute);
    CHECK(host == std::vector<float>(count, 4));
    CHECK(emulator::counters().pageable_copies == 2);
  }
}

TEST_CASE("queries say whether work is done, and asking long enough lets it end") {
  for (const Streams streams : policies) {
    emulator::configure(quiet(1, Order::ascending, streams));
    Program p;
    CHECK(cudaEventQuery(p.filled) == cudaSuccess);
    start_fill(p.compute, p.slot, 1);
    cudaEventRecord(p.filled, p.compute);
    const cudaError_t first = cudaEventQuery(p.filled);
    if (streams == Streams::eager) CHECK(first == cudaSuccess);
    if (streams == Streams::late || streams == Streams::rush) CHECK(first == cudaErrorNotReady);
    int polls = 0;
    while (cudaEventQuery(p.filled) == cudaErrorNotReady && polls < 1000) polls++;
    CHECK(polls < 1000);
    while (cudaStreamQuery(p.compute) == cudaErrorNotReady && polls < 1000) polls++;
    CHECK(polls < 1000);
    CHECK(cudaGetLastError() == cudaSuccess);
    CHECK(cudaEventSynchronize(p.filled) == cudaSuccess);
  }
}

TEST_CASE("a wait means the event's record at that time") {
  for (const Streams streams : policies) {
    emulator::configure(quiet(1, Order::ascending, streams));
    Program p;
    start_fill(p.transfer, p.slot, 2);
    cudaEventRecord(p.filled, p.transfer);
    start_fill(p.compute, p.sum, 0);
    cudaStreamWaitEvent(p.compute, p.filled);
    p.start_add(p.compute);
    cudaEventRecord(p.free, p.compute);
    // The second record waits for the sum, which waits for the first: no circle.
    cudaStreamWaitEvent(p.transfer, p.free);
    start_fill(p.transfer, p.slot, 9);
    cudaEventRecord(p.filled, p.transfer);
    CHECK(sum_is(p, 2));
  }
}

TEST_CASE("destroyed streams and events still do their work") {
  for (const Streams streams : policies) {
    emulator::configure(quiet(1, Order::ascending, streams));
    Program p;
    start_fill(p.transfer, p.slot, 3);
    cudaEventRecord(p.filled, p.transfer);
    start_fill(p.compute, p.sum, 1);
    cudaStreamWaitEvent(p.compute, p.filled);
    CHECK(cudaEventDestroy(p.filled) == cudaSuccess);
    CHECK(cudaStreamDestroy(p.transfer) == cudaSuccess);
    CHECK(cudaStreamSynchronize(p.transfer) == cudaErrorInvalidResourceHandle);
    CHECK(cudaEventRecord(p.filled, p.compute) == cudaErrorInvalidResourceHandle);
    p.start_add(p.compute);
    CHECK(sum_is(p, 4));
  }
}

TEST_CASE("memory goes from device to device, with and without peer access") {
  for (const bool peers : {true, false}) {
    Settings settings = quiet();
    settings.devices = 2;
    settings.peer_access = peers;
    emulator::configure(settings);
    float* first = upload(ascending(count));
    cudaSetDevice(1);
    CHECK(cudaDeviceEnablePeerAccess(0, 0) == (peers ? cudaSuccess : cudaErrorPeerAccessUnsupported));
    auto* second = allocate<float>(count);
    CHECK(cudaMemcpyPeerAsync(second, 1, first, 0, bytes) == cudaSuccess);
    CHECK(download(second, count) == ascending(count));
    CHECK(emulator::counters().peer_bytes == bytes);
    CHECK(cudaMemcpyPeerAsync(second, 0, first, 1, bytes) == cudaErrorInvalidValue);
  }
}

TEST_CASE("a launch into another device's stream is refused") {
  Settings settings = quiet();
  settings.devices = 2;
  emulator::configure(settings);
  Program p;
  cudaSetDevice(1);
  CHECK(launch_in(p.compute, fill, 1, count, 0, p.slot, 1.0f) == cudaErrorInvalidResourceHandle);
  CHECK_MESSAGE(has(emulator::report(), "a stream of device 0 while device 1 is set"), emulator::report());
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
