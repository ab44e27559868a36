// `--strategy auto`: the fastest strategy that fits.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/strategy.h"
#include "ops/device.h"

namespace rwkv {

/// Bytes per second: of a device's memory, of the link to it, of the host's memory as the CPU reads weights.
struct Rates {
  double device = 0, link = 0, host = 0;
};

/// The host, and the CUDA devices that can be opened: one that is too old, say, is left out.
std::vector<std::unique_ptr<Device>> usable_devices(int threads);

/// Copies a few megabytes about on a CUDA device, or on none. A tenth of a second.
Rates measure_rates(std::span<const std::unique_ptr<Device>> devices);

/// Seconds that a decoded token takes at least: every weight read once where its layer is, and streamed ones
/// fetched meanwhile.
double token_seconds(const Config& config, const std::vector<LayerPlan>& plan, const Rates& rates);

/// Everything on the CUDA devices, streamed layers, or layers on the CPU, in 16 bits (bf16 stays bf16) or
/// int8, or in int4 where `wanted` is; everything on the CPU in `wanted`'s precision or int8: of those that
/// fit into free memory the one with the least token_seconds(). Where nothing fits, `wanted`'s precision on
/// the CPU, whose weights are read from the file again and again. Devices: the host, then CUDA devices.
Strategy choose_strategy(const Config& config, const Strategy& wanted, int64_t chunk, const Rates& rates,
                         std::span<const std::unique_ptr<Device>> devices);

}  // namespace rwkv
