#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "model/loader.h"
#include "model/memory_plan.h"

namespace rwkv {

std::shared_ptr<const Model> Model::load(ModelFile file, const LoadOptions& options) {
  auto model = std::make_shared<Model>();
  model->file_ = std::move(file);
  const Config& config = model->file_.config;
  model->strategy_ = options.strategy.empty() ? model->file_.strategy : Strategy::parse(options.strategy);
  model->plan_ = model->strategy_.plan(config.layers());
  model->open_devices(options.threads);
  check_device_memory(config, model->strategy_, options.chunk, model->devices_);
  Loader(*model, options).load();
  return model;
}

void Model::open_devices(int threads) {
  devices_.push_back(cpu::open(threads));
  for (const LayerPlan& plan : plan_) {
    if (plan.device == DeviceKind::cpu) {
      layer_devices_.push_back(devices_.front().get());
      continue;
    }
    if (std::string missing = cuda::missing(); !missing.empty()) {
      throw Error(fmt::format("strategy '{}': {}; or use a cpu strategy, for example 'cpu {}'",
                              to_string(strategy_), missing, precision_name(plan.type, plan.quantization)));
    }
    if (plan.device_index >= cuda::device_count()) {
      throw Error(fmt::format("strategy '{}': there is no cuda:{}: the machine has {} CUDA device{}",
                              to_string(strategy_), plan.device_index, cuda::device_count(),
                              cuda::device_count() == 1 ? ", cuda:0" : "s"));
    }
    auto opened = std::find_if(devices_.begin(), devices_.end(),
                               [&](const auto& device) { return device->id() == plan.device_index + 1; });
    if (opened == devices_.end()) opened = devices_.insert(devices_.end(), cuda::open(plan.device_index));
    layer_devices_.push_back(opened->get());
  }
}

std::span<const float> Model::time_state(int64_t layer) const {
  if (!config().has_time_state) return {};
  // Vectors have one form, whatever the strategy.
  std::span<const std::byte> bytes = file_.bytes_of(layer_prefix(layer) + "att.time_state");
  return {reinterpret_cast<const float*>(bytes.data()),
          static_cast<size_t>(config().n_att * config().head_size)};
}

}  // namespace rwkv
