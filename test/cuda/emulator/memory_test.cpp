// Memory: what is out of bounds, on the wrong side, freed or never written is found.
#include "cuda/emulator/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "test/cuda/emulator/support.h"

namespace rwkv::test::emulated {

namespace {

__global__ void write_at(float* out, long index) {
  if (threadIdx.x == 0) out[index] = 1;
}

__global__ void copy_from(const float* in, float* out, unsigned count) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = in[i];
}

struct Tensors {
  const float* in;
  float* out;
  int count;
};
__global__ void copy_tensors(Tensors tensors) {
  const auto i = static_cast<int>(threadIdx.x);
  if (i < tensors.count) tensors.out[i] = tensors.in[i];
}

__global__ void load_vector(const float* in, float* out, int offset) {
  const auto* address = reinterpret_cast<const char*>(in) + offset;
  const float4 value = __ldg(reinterpret_cast<const float4*>(address));
  if (threadIdx.x == 0) out[0] = value.x;
}

__global__ void store_vector(float* out, int offset) {
  auto* address = reinterpret_cast<char*>(out) + offset;
  if (threadIdx.x == 0) __stcs(reinterpret_cast<uint2*>(address), make_uint2(1, 2));
}

__global__ void fill_stack(float* out, int depth) {
  volatile char bytes[16 * 1024];
  bytes[0] = static_cast<char>(depth);
  if (depth > 0) fill_stack(out, depth - 1);
  out[0] = bytes[0];
}

// A write by a kernel; the report, or the address sanitizer's words where that is linked and sees it by the
// byte.
std::string report_of_write(size_t count, long index) {
  emulator::configure(quiet());
  auto* out = allocate<float>(count);
  launch(write_at, 1, 32, out, index);
  cudaDeviceSynchronize();
  return emulator::report();
}

}  // namespace

TEST_SUITE_BEGIN("emulator");

TEST_CASE("a kernel's access outside allocations is reported with kernel, thread and place") {
  const std::string far = report_of_write(64, 1024);
  CHECK_MESSAGE(has(far, "write_at, block (0, 0, 0), thread (0, 0, 0)"), far);
  CHECK_MESSAGE(has(far, "a write at "), far);
  CHECK_MESSAGE(has(far, "3840 bytes behind the end of allocation 1 of 256 bytes on device 0"), far);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(has(report_of_write(64, 64), "behind the end of allocation 1 of 256 bytes"));
  CHECK(has(report_of_write(64, -1025), "a write at "));
  for_all_orders([] {
    auto* out = allocate<float>(64);
    launch(write_at, 1, 32, out, 63L);
    REQUIRE(download(out, 64)[63] == 1);
    REQUIRE(emulator::report().empty());
  });
}

TEST_CASE("a write into the last bytes of an allocation's alignment is found") {
  // The address sanitizer ends the process at the line; without it the bytes are looked at after the kernel.
  const Ending ending = in_child([] {
    const std::string report = report_of_write(10, 10);
    fputs(report.c_str(), stdout);
    fflush(stdout);
  });
  CHECK_MESSAGE((has(ending.output, "0 bytes behind the end of allocation 1 of 40 bytes") ||
                 has(ending.output, "use-after-poison")),
                ending.output);
}

TEST_CASE("reads of null, host and another device's memory are reported") {
  Settings settings = quiet();
  settings.devices = 2;
  emulator::configure(settings);
  auto* out = allocate<float>(32);
  launch(copy_from, 1, 32, static_cast<const float*>(nullptr), out, 32u);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK_MESSAGE(has(emulator::report(), "a read at "), emulator::report());
  CHECK(has(emulator::report(), "a null pointer"));

  for (const bool in_structure : {false, true}) {
    emulator::configure(settings);
    out = allocate<float>(32);
    const std::vector<float> host(32);
    const cudaError_t error = in_structure ? launch(copy_tensors, 1, 32, Tensors{host.data(), out, 32})
                                           : launch(copy_from, 1, 32, host.data(), out, 32u);
    CHECK(error == cudaErrorIllegalAddress);
    CHECK_MESSAGE(has(emulator::report(), "argument 1: the address of host memory that is not pinned"),
                  emulator::report());
  }

  emulator::configure(settings);
  const auto* there = allocate<float>(32);
  cudaSetDevice(1);
  out = allocate<float>(32);
  CHECK(launch(copy_from, 1, 32, there, out, 32u) == cudaErrorIllegalAddress);
  CHECK_MESSAGE(has(emulator::report(), "on device 0, out of reach for device 1"), emulator::report());
}

TEST_CASE("what lies in the padding of a kernel's argument is no address") {
  emulator::configure(quiet());
  float* data = allocate<float>(1);
  int here = 0;
  const auto address = reinterpret_cast<uintptr_t>(&here);
  std::array<std::byte, sizeof(Tensors)> bytes{};
  std::memcpy(bytes.data() + offsetof(Tensors, count), &address, sizeof address);
  std::memcpy(bytes.data() + offsetof(Tensors, in), &data, sizeof data);
  std::memcpy(bytes.data() + offsetof(Tensors, out), &data, sizeof data);
  CHECK(launch(copy_tensors, 1, 1, std::bit_cast<Tensors>(bytes)) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

TEST_CASE("a kernel reaches pinned, registered and enabled peers' memory") {
  Settings settings = quiet();
  settings.devices = 2;
  emulator::configure(settings);
  const float* there = upload(ascending(32));
  float* pinned = nullptr;
  REQUIRE(cudaMallocHost(&pinned, 32 * sizeof(float)) == cudaSuccess);
  for (int i = 0; i < 32; i++) pinned[i] = 7;
  std::vector<float> registered(32, 8);
  REQUIRE(cudaHostRegister(registered.data(), 32 * sizeof(float), cudaHostRegisterDefault) == cudaSuccess);
  cudaSetDevice(1);
  auto* out = allocate<float>(32);
  int can = 0;
  REQUIRE(cudaDeviceCanAccessPeer(&can, 1, 0) == cudaSuccess);
  CHECK(can == 1);
  REQUIRE(cudaDeviceEnablePeerAccess(0, 0) == cudaSuccess);
  CHECK(cudaDeviceEnablePeerAccess(0, 0) == cudaErrorPeerAccessAlreadyEnabled);
  launch(copy_from, 1, 32, there, out, 32u);
  CHECK(download(out, 32) == ascending(32));
  launch(copy_from, 1, 32, static_cast<const float*>(pinned), out, 32u);
  CHECK(download(out, 32) == std::vector<float>(32, 7));
  launch(copy_tensors, 1, 32, Tensors{registered.data(), out, 32});
  CHECK(download(out, 32) == std::vector<float>(32, 8));
  CHECK(cudaHostUnregister(registered.data()) == cudaSuccess);
  CHECK(cudaHostUnregister(registered.data()) == cudaErrorHostMemoryNotRegistered);
  CHECK(launch(copy_tensors, 1, 32, Tensors{registered.data(), out, 32}) == cudaErrorIllegalAddress);
}

TEST_CASE("a mapped file is registered for reading, and only copied from") {
  constexpr size_t bytes = 8192;
  const int file = memfd_create("weights", 0);
  REQUIRE(file >= 0);
  REQUIRE(write(file, std::vector<float>(bytes / 4, 3).data(), bytes) == bytes);
  auto* mapped = static_cast<float*>(mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0));
  REQUIRE(mapped != MAP_FAILED);
  close(file);
  Settings settings = quiet();
  emulator::configure(settings);
  CHECK(cudaHostRegister(mapped, bytes, cudaHostRegisterDefault) == cudaErrorInvalidValue);
  CHECK(cudaHostRegister(mapped, bytes / 2, cudaHostRegisterReadOnly) == cudaSuccess);
  CHECK(cudaHostRegister(mapped, bytes, cudaHostRegisterReadOnly) == cudaErrorHostMemoryAlreadyRegistered);
  auto* out = allocate<float>(bytes / 4);
  CHECK(cudaMemcpyAsync(out, mapped, bytes / 2, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(download(out, 32) == std::vector<float>(32, 3));
  CHECK(emulator::counters().pageable_copies == 0);
  launch(copy_from, 1, 32, static_cast<const float*>(mapped), out, 32u);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(cudaMemcpy(out, mapped, bytes, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK_MESSAGE(has(emulator::report(), "registered in part only"), emulator::report());
  emulator::configure(settings);
  out = allocate<float>(64);
  CHECK(cudaHostRegister(mapped, bytes, cudaHostRegisterReadOnly) == cudaSuccess);
  CHECK(cudaMemcpy(mapped, out, 256, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK_MESSAGE(has(emulator::report(), "registered for reading only"), emulator::report());
  launch(write_at, 1, 32, mapped, 0L);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  settings.register_read_only = false;
  emulator::configure(settings);
  CHECK(cudaHostRegister(mapped, bytes, cudaHostRegisterReadOnly) == cudaErrorNotSupported);
  munmap(mapped, bytes);
}

TEST_CASE("host code that touches device memory ends with a line that says which") {
  const Ending ending = in_child([] {
    emulator::configure(quiet());
    volatile auto* memory = allocate<float>(25);
    memory[3] = 1;
  });
  CHECK(ending.died);
  CHECK_MESSAGE(has(ending.output, "host code touched byte 12 of allocation 1 of 100 bytes on device 0"),
                ending.output);
  const Ending after_kernel = in_child([] {
    emulator::configure(quiet());
    auto* memory = allocate<float>(32);
    launch(write_at, 1, 32, memory, 0L);
    cudaDeviceSynchronize();
    volatile float value = memory[0];
    (void)value;
  });
  CHECK(after_kernel.died);
  const Ending freed = in_child([] {
    emulator::configure(quiet());
    float* memory = nullptr;
    cudaMallocHost(&memory, 400);
    memory[0] = 1;
    cudaFreeHost(memory);
    static_cast<volatile float*>(memory)[1] = 1;
  });
  CHECK(freed.died);
  CHECK_MESSAGE(has(freed.output, "freed memory, byte 4 of allocation 1 of 400 bytes of pinned memory"),
                freed.output);
}

TEST_CASE("copies with a pointer of the wrong side, or beyond an allocation, are refused with a report") {
  std::vector<float> host(100);
  const auto refused = [&](auto action, cudaError_t error, const std::string& words) {
    emulator::configure(quiet());
    auto* device = allocate<float>(100);
    CHECK(action(device) == error);
    CHECK_MESSAGE(has(emulator::report(), words), emulator::report());
    CHECK(cudaGetLastError() == error);
    CHECK(cudaGetLastError() == cudaSuccess);
  };
  refused([&](float* device) { return cudaMemcpy(host.data(), device, 400, cudaMemcpyHostToDevice); },
          cudaErrorInvalidMemcpyDirection, "a copy from device to host memory, called as kind 1");
  refused([&](float* device) { return cudaMemcpy(device, host.data(), 404, cudaMemcpyHostToDevice); },
          cudaErrorInvalidValue, "404 bytes that begins at byte 0 of allocation 1 of 400 bytes");
  refused([&](float* device) { return cudaMemcpy(host.data(), device + 1, 400, cudaMemcpyDefault); },
          cudaErrorInvalidValue, "begins at byte 4");
  refused([&](float*) { return cudaMemset(host.data(), 0, 4); }, cudaErrorInvalidValue,
          "cudaMemset of host memory");
  refused([&](float* device) { return cudaFree(device + 1); }, cudaErrorInvalidValue, "cudaFree of byte 4");
  refused([&](float* device) { return cudaFreeHost(device); }, cudaErrorInvalidValue,
          "cudaFreeHost of byte 0");
  refused(
      [&](float* device) {
        cudaFree(device);
        return cudaFree(device);
      },
      cudaErrorInvalidValue, "freed memory");
}

TEST_CASE("a misaligned vector load or store is reported") {
  for (const int offset : {0, 16, 4, 8}) {
    emulator::configure(quiet());
    float* in = upload(ascending(32));
    launch(load_vector, 1, 32, static_cast<const float*>(in), allocate<float>(1), offset);
    CHECK(cudaDeviceSynchronize() == (offset % 16 == 0 ? cudaSuccess : cudaErrorMisalignedAddress));
    emulator::configure(quiet());
    launch(store_vector, 1, 32, allocate<float>(32), offset);
    CHECK(cudaDeviceSynchronize() == (offset % 8 == 0 ? cudaSuccess : cudaErrorMisalignedAddress));
  }
}

TEST_CASE("a full stack is reported") {
  emulator::configure(quiet());
  auto* out = allocate<float>(1);
  launch(fill_stack, 1, 1, out, 2);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  launch(fill_stack, 1, 1, out, 1000);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK_MESSAGE(has(emulator::report(), "the thread's stack is full"), emulator::report());
}

TEST_CASE("a device has the memory it was given, and says how much is free") {
  emulator::configure(quiet());
  size_t free = 0, total = 0;
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(total == 64 << 20);
  CHECK(free == total);
  void* half = nullptr;
  REQUIRE(cudaMalloc(&half, total / 2) == cudaSuccess);
  void* rest = &rest;
  CHECK(cudaMalloc(&rest, total / 2 + 1) == cudaErrorMemoryAllocation);
  CHECK(rest == nullptr);
  CHECK(cudaMalloc(&rest, std::numeric_limits<size_t>::max()) == cudaErrorMemoryAllocation);
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(free == total / 2);
  REQUIRE(cudaFree(half) == cudaSuccess);
  REQUIRE(cudaMalloc(&rest, total) == cudaSuccess);
  CHECK(emulator::counters().peak_device_bytes == total);
}

TEST_SUITE_END();

}  // namespace rwkv::test::emulated
