#include "model/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "model/executor.h"
#include "model/state.h"

namespace rwkv {
namespace {

using Devices = std::span<const std::unique_ptr<Device>>;

Device* device_of(const LayerPlan& plan, Devices devices) {
  int id = plan.device == DeviceKind::cpu ? 0 : plan.device_index + 1;
  auto found = std::ranges::find_if(devices, [&](const auto& d) { return d->id() == id; });
  return found == devices.end() ? nullptr : found->get();
}

DeviceMemory& entry_of(std::vector<DeviceMemory>& all, Device* device) {
  auto found = std::ranges::find(all, device, &DeviceMemory::device);
  if (found != all.end()) return *found;
  all.push_back({.device = device});
  return all.back();
}

// With what a device wants to be left.
bool fits(const std::vector<DeviceMemory>& memory) {
  return std::ranges::all_of(memory, [](const DeviceMemory& m) {
    const uint64_t free = m.device->free_memory();
    return m.device->id() == 0 || m.total() + m.device->spare_memory(free) <= free;
  });
}

// The strategy with `count` resident layers in a segment; what is left is streamed when it is the last one.
std::optional<Strategy> with_layers(const Strategy& strategy, size_t segment, int64_t count) {
  Strategy s = strategy;
  bool last = segment + 1 == s.segments.size();
  s.segments[segment].layers = count;
  s.segments[segment].stream = s.segments[segment].stream || last;
  if (count == 0 && !s.segments[segment].stream)
    s.segments.erase(s.segments.begin() + static_cast<std::ptrdiff_t>(segment));
  if (std::ranges::count_if(s.segments, &Segment::stream) > 1) return std::nullopt;
  return s;
}

// The same with room for a last segment on the CPU, to which layers can be moved.
Strategy ending_on_cpu(const Config& config, Strategy s) {
  Segment& last = s.segments.back();
  int64_t left = config.layers();
  for (const Segment& before : s.segments) left -= &before == &last ? 0 : before.layers.value_or(0);
  if (last.device == DeviceKind::cpu || left == 0) return s;
  last.layers = left;
  last.stream = false;
  s.segments.push_back({DeviceKind::cpu, 0, last.type, last.quantization, {}, false});
  return s;
}

bool uses_device(const Strategy& strategy) {
  return std::ranges::any_of(strategy.segments, [](const Segment& s) { return s.device != DeviceKind::cpu; });
}

// "'cuda fp16i8 *20+' (weights in int8, layers streamed)"
std::string explained(const Strategy& fitting, bool in_int8) {
  const bool streams = std::ranges::any_of(fitting.segments, &Segment::stream);
  const bool on_cpu = fitting.segments.back().device == DeviceKind::cpu;
  std::string what = in_int8 ? "weights in int8" : "";
  if (streams || on_cpu)
    what += fmt::format("{}{}", what.empty() ? "" : ", ", streams ? "layers streamed" : "layers on the CPU");
  return fmt::format("'{}'{}", to_string(fitting), what.empty() ? "" : fmt::format(" ({})", what));
}

// What fits in place of the strategy, in its precision where possible, otherwise in int8: with streamed
// layers, and with the last ones on the CPU. "" when nothing does.
std::string proposals(const Config& config, const Strategy& strategy, int64_t chunk, Devices devices) {
  Strategy int8 = strategy;
  for (Segment& s : int8.segments)
    if (s.quantization == Quantization::none) s.quantization = Quantization::int8;
  auto first_fitting = [&](const Strategy& as_it_is, const Strategy& in_int8) -> std::string {
    for (const Strategy* s : {&as_it_is, &in_int8}) {
      Strategy fitting = fitting_strategy(config, *s, chunk, devices);
      if (uses_device(fitting)) return explained(fitting, s == &in_int8);
    }
    return "";
  };
  std::string streamed = first_fitting(strategy, int8);
  std::string split = first_fitting(ending_on_cpu(config, strategy), ending_on_cpu(config, int8));
  if (streamed.empty() || streamed == split) return split;
  return split.empty() ? streamed : fmt::format("{}, or {}", streamed, split);
}

std::string size_text(uint64_t bytes) {
  auto value = static_cast<double>(bytes);
  return value < 1e9 ? fmt::format("{:.1f} MB", value / 1e6) : fmt::format("{:.2f} GB", value / 1e9);
}

}  // namespace

std::vector<DeviceMemory> memory_plan(const Config& config, const std::vector<LayerPlan>& plan, int64_t chunk,
                                      Devices devices, std::span<const StoredForm> stored) {
  std::vector<DeviceMemory> all;
  Extent extent = extent_of(config, plan, chunk);
  for (size_t i = 0; i < plan.size(); i++) {
    Device* device = device_of(plan[i], devices);
    if (device == nullptr) throw Error(fmt::format("there is no device for layer {}", i));
    DeviceMemory& m = entry_of(all, device);
    if (static_cast<int64_t>(i) < config.n_layer) m.state += state_bytes(config);
    m.activations =
        activation_bytes(config, extent) + device->workspace_bytes(operator_limits(config, extent));
  }
  DeviceMemory& head = entry_of(all, device_of(plan.back(), devices));
  if (head.device->id() != 0)
    head.activations += static_cast<uint64_t>(logit_rows(config, extent) * config.n_vocab) * 4;
  for (const ModelTensor& t : model_tensors(config, plan, stored)) {
    const LayerPlan& layer = plan[static_cast<size_t>(t.layer)];
    bool host = t.spec.role == Role::table;
    bool streamed = layer.streamed && !(t.layer == config.n_layer && t.spec.role == Role::vector);
    Device* device = host || streamed ? devices.front().get() : device_of(layer, devices);
    DeviceMemory& m = entry_of(all, device);
    (host || !streamed ? m.weights : m.streamed) += static_cast<uint64_t>(t.form.bytes());
  }
  if (auto parts = streamed_parts(config, plan); !parts.empty()) {
    const LayerPlan& layer = plan[static_cast<size_t>(parts.front().layer)];
    entry_of(all, device_of(layer, devices)).slots = stream_slots * slot_bytes(parts);
  }
  return all;
}

Strategy fitting_strategy(const Config& config, const Strategy& strategy, int64_t chunk, Devices devices) {
  auto works = [&](const std::optional<Strategy>& s) {
    return s && fits(memory_plan(config, s->plan(config.layers()), chunk, devices));
  };
  if (works(strategy)) return strategy;
  for (size_t segment = strategy.segments.size(); segment-- > 0;) {
    if (strategy.segments[segment].device == DeviceKind::cpu) continue;
    int64_t taken = 0;
    for (const Segment& s : strategy.segments)
      taken += &s == &strategy.segments[segment] ? 0 : s.layers.value_or(0);
    int64_t low = 0, high = strategy.segments[segment].layers.value_or(config.layers() - taken);
    if (!works(with_layers(strategy, segment, 0))) continue;
    while (low < high) {  // the most layers that fit: more never fit when fewer do not
      int64_t middle = (low + high + 1) / 2;
      if (works(with_layers(strategy, segment, middle))) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return *with_layers(strategy, segment, low);
  }
  return {};
}

std::string memory_shortage(const Config& config, const Strategy& strategy, int64_t chunk, Devices devices) {
  for (const DeviceMemory& m : memory_plan(config, strategy.plan(config.layers()), chunk, devices)) {
    uint64_t free = m.device->free_memory();
    if (m.device->id() == 0 || m.total() <= free) continue;
    const std::string proposed = proposals(config, strategy, chunk, devices);
    return fmt::format(
        "strategy '{}': {} has {} free, but {} are needed (weights {}, slots {}, state {}, activations "
        "{}); {}",
        to_string(strategy), m.device->description(), size_text(free), size_text(m.total()),
        size_text(m.weights), size_text(m.slots), size_text(m.state), size_text(m.activations),
        proposed.empty() ? "nothing fits: use a cpu strategy" : fmt::format("fits with: {}", proposed));
  }
  return "";
}

void check_device_memory(const Config& config, const Strategy& strategy, int64_t chunk, Devices devices) {
  std::string shortage = memory_shortage(config, strategy, chunk, devices);
  if (!shortage.empty()) throw Error(shortage);
}

}  // namespace rwkv
