#include "model/auto_strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "model/memory_plan.h"
#include "model/model_file.h"

namespace rwkv {
namespace {

using Devices = std::span<const std::unique_ptr<Device>>;

constexpr size_t sample_bytes = 32 << 20;

// The better of two runs: the first one also sets things up.
template <class Action>
double bytes_per_second(double bytes, Action action) {
  double best = 0;
  for (int i = 0; i < 2; i++) {
    auto start = std::chrono::steady_clock::now();
    action();
    best = std::max(best,
                    bytes / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double host_rate(int threads) {
  ThreadPool pool(threads);
  Buffer from = Buffer::host(sample_bytes), to = Buffer::host(sample_bytes);
  return bytes_per_second(2.0 * sample_bytes, [&] {
    pool.run([&](int worker) {
      Range part = partition(sample_bytes, 4096, worker, pool.threads());
      std::memcpy(to.data() + part.begin, from.data() + part.begin,
                  static_cast<size_t>(part.end - part.begin));
    });
  });
}

// What a segment computes in: 16 bits, bf16 where the model is.
DType half_type(const Strategy& wanted) {
  return wanted.segments.front().type == DType::bf16 ? DType::bf16 : DType::f16;
}

// What big matrices may be. Those that are int4 stay so: wider ones would bring nothing back.
std::vector<Quantization> quantizations(const Strategy& wanted) {
  if (wanted.segments.front().quantization == Quantization::int4) return {Quantization::int4};
  return {Quantization::none, Quantization::int8};
}

// The CUDA devices one after the other, with layers in proportion to their free memory.
Strategy over_devices(const Config& config, DType type, Quantization quantization, Devices cuda) {
  Strategy strategy;
  double all = 0;
  for (const auto& device : cuda) all += static_cast<double>(device->free_memory());
  for (const auto& device : cuda) {
    Segment s{DeviceKind::cuda, device->id() - 1, type, quantization, {}, false};
    auto share = static_cast<int64_t>(static_cast<double>(config.layers()) *
                                      static_cast<double>(device->free_memory()) / all);
    if (&device != &cuda.back()) s.layers = share;
    if (!s.layers || *s.layers > 0) strategy.segments.push_back(s);
  }
  return strategy;
}

// Host memory that streaming and the CPU's layers take beside the file.
uint64_t host_bytes(const Config& config, const std::vector<LayerPlan>& plan) {
  uint64_t bytes = 0;
  for (const ModelTensor& t : model_tensors(config, plan)) {
    const LayerPlan& layer = plan[static_cast<size_t>(t.layer)];
    if (layer.streamed || layer.device == DeviceKind::cpu) bytes += static_cast<uint64_t>(t.form.bytes());
  }
  return bytes;
}

Strategy on_cpu(DType type, Quantization quantization) {
  return {{{DeviceKind::cpu, 0, type, quantization, {}, false}}};
}

std::vector<Strategy> candidates(const Config& config, const Strategy& wanted, int64_t chunk,
                                 Devices devices) {
  std::vector<Strategy> all;
  for (Quantization quantization : quantizations(wanted))
    all.push_back(on_cpu(wanted.segments.front().type, quantization));
  if (devices.size() == 1) return all;
  const DType type = half_type(wanted);
  auto add = [&](const Strategy& s) {
    Strategy fitting = fitting_strategy(config, s, chunk, devices);
    if (!fitting.segments.empty()) all.push_back(fitting);
  };
  for (Quantization quantization : quantizations(wanted)) {
    Strategy resident = over_devices(config, type, quantization, devices.subspan(1));
    add(resident);
    if (!all.empty() && all.back().segments == resident.segments) continue;  // all of it fits
    Strategy split = resident;
    int64_t taken = 0;
    for (const Segment& s : split.segments) taken += s.layers.value_or(0);
    split.segments.back().layers = config.layers() - taken;
    split.segments.push_back({DeviceKind::cpu, 0, type, quantization, {}, false});
    add(split);
  }
  return all;
}

}  // namespace

std::vector<std::unique_ptr<Device>> usable_devices(int threads) {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(cpu::open(threads));
  const int count = cuda::device_count();
  for (int i = 0; i < count; i++) {
    try {
      devices.push_back(cuda::open(i));
    } catch (const Error&) {  // the others will do
    }
  }
  return devices;
}

Rates measure_rates(Devices devices) {
  Rates rates;
  rates.host = host_rate(devices.front()->threads());
  if (devices.size() < 2) return rates;
  Device& device = *devices[1];
  Buffer staging = device.allocate_staging(sample_bytes), memory = device.allocate(2 * sample_bytes);
  rates.link =
      bytes_per_second(sample_bytes, [&] { device.copy_in(memory.data(), staging.data(), sample_bytes); });
  rates.device = bytes_per_second(
      2.0 * sample_bytes, [&] { device.copy(memory.data() + sample_bytes, memory.data(), sample_bytes); });
  return rates;
}

double token_seconds(const Config& config, const std::vector<LayerPlan>& plan, const Rates& rates) {
  double device = 0, link = 0, host = 0;
  for (const ModelTensor& t : model_tensors(config, plan)) {
    if (t.spec.role == Role::table) continue;
    const LayerPlan& layer = plan[static_cast<size_t>(t.layer)];
    auto bytes = static_cast<double>(t.form.bytes());
    (layer.device == DeviceKind::cpu ? host : device) += bytes;
    if (layer.streamed) link += bytes;
  }
  double on_device = device == 0 ? 0 : std::max(device / rates.device, link / rates.link);
  return on_device + (host == 0 ? 0 : host / rates.host);
}

Strategy choose_strategy(const Config& config, const Strategy& wanted, int64_t chunk, const Rates& rates,
                         Devices devices) {
  Strategy best;
  double best_seconds = 0;
  for (const Strategy& s : candidates(config, wanted, chunk, devices)) {
    std::vector<LayerPlan> plan = s.plan(config.layers());
    if (host_bytes(config, plan) > available_memory()) continue;
    double seconds = token_seconds(config, plan, rates);
    if (best.segments.empty() || seconds < best_seconds) {
      best = s;
      best_seconds = seconds;
    }
  }
  if (!best.segments.empty()) return best;
  return on_cpu(wanted.segments.front().type, wanted.segments.front().quantization);
}

}  // namespace rwkv
