#include "cuda/library.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "cuda/check.h"
#include "cuda/memory.h"
#include "ops/layout.h"

namespace rwkv::cuda {
namespace {

constexpr size_t mebibyte = size_t{1} << 20;
constexpr size_t workspace_bytes = 32 * mebibyte;  // what the library recommends for its largest devices
constexpr size_t most_sum_bytes = 32 * mebibyte;
constexpr size_t library_spare_bytes = 512 * mebibyte;  // for what the library loads
constexpr double largest_difference = 1e-3;             // of two orders of a sum, relative to the sums; rms
constexpr int repetitions = 3;

class TimedEvent {
 public:
  TimedEvent() { check(cudaEventCreate(&event_), "make an event"); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;

  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "record an event"); }
  [[nodiscard]] float since(const TimedEvent& before) const {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, before.event_, event_), "measure time");
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// A product as large as the limits allow and as a measurement needs.
class Trial {
 public:
  Trial(int device, const Ops::Limits& limits)
      : tokens_(std::min<int64_t>(limits.tokens, 1024)),
        matrix_{Layout::cuda_blocks, DType::f16, std::min<int64_t>(limits.product_outputs, 4096),
                std::min<int64_t>(limits.product_inputs / 64 * 64, 4096)},
        weight_(allocate(device, static_cast<size_t>(matrix_.bytes()))),
        x_(allocate(device, static_cast<size_t>(tokens_ * matrix_.inputs) * sizeof(float))),
        out_(allocate(device, static_cast<size_t>(tokens_ * matrix_.outputs) * sizeof(float))) {
    fill<uint16_t>(device, weight_, [](float value) { return to_half(value).bits; });
    fill<float>(device, x_, [](float value) { return value; });
  }

  /// Milliseconds of one product, and its results.
  float run(const Queue& queue, const Workspace& workspace, std::vector<float>& results) const {
    Product p;
    p.x = matrix_view(x_.data(), DType::f32, tokens_, matrix_.inputs);
    p.weight = packed_view(matrix_, weight_.data());
    p.out = matrix_view(out_.data(), DType::f32, tokens_, matrix_.outputs);
    TimedEvent begin, end;
    for (int i = 0; i <= repetitions; i++) {
      if (i == 1) begin.record(queue.stream());  // the first one loads the kernels
      matmul({&p, 1}, workspace, queue.stream());
    }
    end.record(queue.stream());
    queue.synchronize();
    results.resize(out_.size() / sizeof(float));
    copy_and_wait(queue.device(), reinterpret_cast<std::byte*>(results.data()), out_.data(), out_.size(),
                  cudaMemcpyDeviceToHost);
    return end.since(begin) / repetitions;
  }

 private:
  template <class T, class Convert>
  static void fill(int device, const Buffer& buffer, Convert convert) {
    constexpr unsigned period = 4099;  // a prime, so that no two rows are equal
    std::vector<T> values(buffer.size() / sizeof(T));
    for (size_t i = 0; i < values.size(); i++)
      values[i] = convert(static_cast<float>(i % period * 2654435761u % 2048) / 1024 - 1);
    copy_and_wait(device, buffer.data(), reinterpret_cast<const std::byte*>(values.data()), buffer.size(),
                  cudaMemcpyHostToDevice);
  }

  int64_t tokens_;
  MatrixLayout matrix_;
  Buffer weight_, x_, out_;
};

// False for NaN.
bool agree(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); i++) {
    difference += std::pow(double{a[i]} - b[i], 2);
    size += std::pow(double{a[i]}, 2);
  }
  return difference <= size * largest_difference * largest_difference;
}

bool is_faster(const Queue& queue, const Ops::Limits& limits, const Workspace& with_library,
               double share_of_time) {
  Workspace without = with_library;
  without.library = nullptr;
  const Trial trial(queue.device(), limits);
  std::vector<float> ours, theirs;
  float our_time = trial.run(queue, without, ours), their_time = trial.run(queue, with_library, theirs);
  for (int i = 0; i < repetitions; i++) {  // in turns: a device speeds up as it gets work
    our_time = std::min(our_time, trial.run(queue, without, ours));
    their_time = std::min(their_time, trial.run(queue, with_library, theirs));
  }
  return their_time <= share_of_time * our_time && agree(ours, theirs);
}

}  // namespace

void FasterLibrary::look(const Queue& queue, const Ops::Limits& limits, Workspace& workspace) {
  if (looked_ || limits.tokens < library_tokens || limits.product_inputs < 64) return;
  looked_ = true;
  const CublasFunctions* functions = cublas_functions();
  if (functions == nullptr) return;
  const size_t sum_bytes =
      std::min(most_sum_bytes, static_cast<size_t>(limits.tokens * limits.product_outputs) * sizeof(float));
  try {
    if (free_memory(queue.device()) < workspace_bytes + sum_bytes + library_spare_bytes) return;
    memory_ = allocate(queue.device(), workspace_bytes);
    sums_ = allocate(queue.device(), sum_bytes);
    cublas_ = std::make_unique<Cublas>(*functions, queue.stream(), memory_.data(), memory_.size());
    Workspace with_library = workspace;
    with_library.library = cublas_.get();
    with_library.library_sums = reinterpret_cast<float*>(sums_.data());
    with_library.library_sum_bytes = sum_bytes;
    if (is_faster(queue, limits, with_library, share_of_time_)) {
      workspace = with_library;
      return;
    }
  } catch (const Error&) {  // without it, then
  }
  cublas_.reset();
  memory_ = Buffer();
  sums_ = Buffer();
}

}  // namespace rwkv::cuda
