#include "cuda/memory.h"

#include <cuda_runtime.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.h"
#include "cuda/check.h"

namespace rwkv::cuda {
namespace {

double megabytes(size_t bytes) { return static_cast<double>(bytes) / 1e6; }

// The pointer goes back to the runtime when the device is done. What fails here would fail in the next call,
// too, and be told there.
Buffer make_buffer(int device, std::byte* data, size_t bytes, void* pointer, cudaError_t (*release)(void*)) {
  return {data, bytes, [device, pointer, release](std::byte*) {
            cudaSetDevice(device);
            cudaDeviceSynchronize();
            release(pointer);
            cudaGetLastError();
          }};
}

}  // namespace

void set_device(int device) { check(cudaSetDevice(device), "use the device"); }

uint64_t free_memory(int device) {
  set_device(device);
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "ask for its free memory");
  return free;
}

void copy_and_wait(int device, std::byte* to, const std::byte* from, size_t bytes, cudaMemcpyKind kind) {
  set_device(device);
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, kind, nullptr), "copy memory");
  check(cudaStreamSynchronize(nullptr), "copy memory");
}

Buffer allocate(int device, size_t bytes) {
  set_device(device);
  const size_t size = std::max<size_t>(bytes, 1);
  void* pointer = nullptr;
  const cudaError_t result = cudaMalloc(&pointer, size);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(fmt::format(
        "cuda:{}: not enough memory: {:.1f} MB are wanted and {:.1f} MB are free; keep fewer "
        "layers on the device (*N+), choose int8 or int4 (such as fp16i8), or close other programs "
        "there",
        device, megabytes(bytes), megabytes(free_memory(device))));
  }
  check(result, "allocate memory");
  Buffer buffer = make_buffer(device, static_cast<std::byte*>(pointer), bytes, pointer, cudaFree);
  check(cudaMemset(pointer, 0, size), "clear memory");
  check(cudaStreamSynchronize(nullptr), "clear memory");
  return buffer;
}

Buffer allocate_pinned(int device, size_t bytes) {
  set_device(device);
  void* pointer = nullptr;
  const cudaError_t result = cudaHostAlloc(&pointer, std::max<size_t>(bytes, 1), cudaHostAllocPortable);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(
        fmt::format("cuda:{}: not enough host memory: {:.1f} MB that the device can copy are wanted; close "
                    "other programs, or stream fewer layers",
                    device, megabytes(bytes)));
  }
  check(result, "allocate host memory");
  return make_buffer(device, static_cast<std::byte*>(pointer), bytes, pointer, cudaFreeHost);
}

Buffer pin(int device, std::span<const std::byte> bytes) {
  set_device(device);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t before = reinterpret_cast<uintptr_t>(bytes.data()) % page;
  auto* data = const_cast<std::byte*>(bytes.data());
  std::byte* pages = data - before;
  const size_t size = (before + bytes.size() + page - 1) / page * page;
  if (cudaHostRegister(pages, size, cudaHostRegisterPortable | cudaHostRegisterReadOnly) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  return make_buffer(device, data, bytes.size(), pages, cudaHostUnregister);
}

}  // namespace rwkv::cuda
