// What a strategy takes of each device's memory, before anything is loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/activations.h"
#include "model/config.h"
#include "model/strategy.h"
#include "model/weights.h"
#include "ops/device.h"

namespace rwkv {

/// Bytes on one device, for one executor and one state.
struct DeviceMemory {
  Device* device = nullptr;
  uint64_t weights = 0;   ///< resident ones
  uint64_t streamed = 0;  ///< weights that wait on the host for their turn in a slot
  uint64_t slots = 0;     ///< of the streamed ones
  uint64_t state = 0;
  uint64_t activations = 0;  ///< and logits, and what operators need

  [[nodiscard]] uint64_t total() const { return weights + streamed + slots + state + activations; }
};

/// Each device that takes part, in the order of the layers. `devices`: the host, then CUDA devices, of which
/// those of the plan must be there, if only planned (model/planned_device.h). `stored`: the forms of the
/// model file's tensors; without them, as before a checkpoint is converted, bf16 on the CPU counts in 16
/// bits.
std::vector<DeviceMemory> memory_plan(const Config& config, const std::vector<LayerPlan>& plan, int64_t chunk,
                                      std::span<const std::unique_ptr<Device>> devices,
                                      std::span<const StoredForm> stored = {});

/// "" when every CUDA device has as much memory free as the strategy needs; else one line with the numbers
/// and what fits, if anything does: with streamed layers and with layers on the CPU, in the same precision or
/// int8, each with Device::spare_memory() left.
std::string memory_shortage(const Config& config, const Strategy& strategy, int64_t chunk,
                            std::span<const std::unique_ptr<Device>> devices);
/// Throws it as Error.
void check_device_memory(const Config& config, const Strategy& strategy, int64_t chunk,
                         std::span<const std::unique_ptr<Device>> devices);

/// The same strategy with so many of the layers on the crowded CUDA device streamed that everything fits;
/// empty when nothing does.
Strategy fitting_strategy(const Config& config, const Strategy& strategy, int64_t chunk,
                          std::span<const std::unique_ptr<Device>> devices);

}  // namespace rwkv
