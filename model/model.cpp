#include "model/model.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "cpu/cpu.h"
#include "model/repack.h"

namespace rwkv {

std::shared_ptr<const Model> Model::load(ModelFile file, const LoadOptions& options) {
  auto model = std::make_shared<Model>();
  model->file_ = std::move(file);
  const Config& config = model->file_.config;
  model->strategy_ = options.strategy.empty() ? model->file_.strategy : Strategy::parse(options.strategy);
  model->plan_ = model->strategy_.plan(config.layers());
  model->open_devices(options.threads);
  model->bind(options.progress);
  return model;
}

void Model::open_devices(int threads) {
  for (const LayerPlan& plan : plan_) {
    if (plan.device != DeviceKind::cpu) {
      throw Error(
          fmt::format("strategy '{}': this build has no CUDA; use a cpu strategy, for example 'cpu {}'",
                      to_string(strategy_), precision_name(plan.type, plan.int8)));
    }
  }
  devices_.push_back(cpu::open(threads));
  layer_devices_.assign(plan_.size(), devices_.front().get());
}

void Model::bind(const Progress& progress) {
  ThreadPool pool(devices_.front()->threads());
  std::vector<ModelTensor> wanted = model_tensors(config(), plan_);
  uint64_t total = 0, done = 0;
  for (const ModelTensor& tensor : wanted) total += static_cast<uint64_t>(tensor.form.bytes());
  size_t index = 0;
  for_each_tensor(weights_, config(),
                  [&](const TensorSpec& spec, const std::string& name, int64_t, Tensor& member) {
                    const StoredForm &from = file_.tensors[index].form, &to = wanted[index].form;
                    index++;
                    const std::byte* data = file_.bytes_of(name).data();
                    auto bytes = static_cast<uint64_t>(to.bytes());
                    if (from != to) {
                      check_memory(bytes, file_.file.path(),
                                   "convert the checkpoint for this strategy with rwkv-convert");
                      buffers_.push_back(Buffer::host(bytes));
                      repack(spec, from, data, to, buffers_.back().data(), pool);
                      data = buffers_.back().data();
                      converted_bytes_ += bytes;
                      if (progress) progress("converting weights", done + bytes, total);
                    }
                    done += bytes;
                    if (spec.role != Role::table) weight_bytes_ += bytes;
                    member = stored_view(spec, to, data);
                  });
}

}  // namespace rwkv
