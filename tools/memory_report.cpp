#include "tools/memory_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "apps/common/model_option.h"
#include "apps/common/progress.h"
#include "core/error.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "model/auto_strategy.h"
#include "model/memory_plan.h"
#include "model/model_file.h"
#include "model/planned_device.h"

namespace rwkv::apps {
namespace {

using Devices = std::vector<std::unique_ptr<Device>>;

constexpr const char* usual_strategies[] = {"cpu fp32",  "cpu bf16",    "cpu bf16i8", "cpu bf16i4",
                                            "cuda fp16", "cuda fp16i8", "cuda fp16i4"};
constexpr uint64_t unknown = std::numeric_limits<uint64_t>::max();

int64_t chunk() { return ModelOptions().chunk; }

// The host and the CUDA devices that the strategy names.
Devices devices_of(const Strategy& strategy, std::optional<uint64_t> device_memory) {
  Devices devices;
  devices.push_back(cpu::open());
  for (const Segment& s : strategy.segments) {
    bool there = std::ranges::any_of(devices, [&](const auto& d) { return d->id() == s.device_index + 1; });
    if (s.device == DeviceKind::cpu || there) continue;
    bool here = !device_memory && s.device_index < cuda::device_count();
    devices.push_back(here ? cuda::open(s.device_index)
                           : plan_cuda_device(s.device_index, device_memory.value_or(unknown)));
  }
  return devices;
}

// What `auto` chooses on a machine with one such device, or on this one.
Strategy resolve(const MemoryQuestion& question) {
  if (question.strategy != "auto") return Strategy::parse(question.strategy);
  if (!question.device_memory) {
    const Devices devices = usable_devices(0);
    return choose_strategy(question.config, question.made_for, chunk(), measure_rates(devices), devices);
  }
  Devices devices;
  devices.push_back(cpu::open());
  devices.push_back(plan_cuda_device(0, *question.device_memory));
  constexpr Rates usual = {.device = 400e9, .link = 20e9, .host = 40e9};
  return choose_strategy(question.config, question.made_for, chunk(), usual, devices);
}

std::string bytes_text(uint64_t bytes) { return bytes == 0 ? "-" : human_bytes(bytes); }

void print_device(const DeviceMemory& m) {
  uint64_t free = m.device->free_memory();
  fmt::print("{:<8} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11}\n",
             m.device->id() == 0 ? "host" : fmt::format("cuda:{}", m.device->id() - 1),
             human_bytes(m.total()), bytes_text(m.weights), bytes_text(m.streamed), bytes_text(m.slots),
             bytes_text(m.state), bytes_text(m.activations), free == unknown ? "unknown" : human_bytes(free));
}

struct WeightBytes {
  uint64_t all = 0;
  uint64_t converted = 0;  ///< those of the host that do not have the file's form
};

WeightBytes weight_bytes(const MemoryQuestion& question, const std::vector<LayerPlan>& plan) {
  std::vector<ModelTensor> tensors = model_tensors(question.config, plan, question.stored);
  WeightBytes sum;
  for (size_t i = 0; i < tensors.size(); i++) {
    const ModelTensor& t = tensors[i];
    const LayerPlan& layer = plan[static_cast<size_t>(t.layer)];
    bool host = layer.device == DeviceKind::cpu || layer.streamed || t.spec.role == Role::table;
    auto bytes = static_cast<uint64_t>(t.form.bytes());
    sum.all += bytes;
    if (host && !question.stored.empty() && question.stored[i] != t.form) sum.converted += bytes;
  }
  return sum;
}

// Where the host's weights come from: a model file's pages are used in place where they have the right form.
void print_source(const MemoryQuestion& question, const Strategy& strategy, const WeightBytes& weights) {
  const std::string advice =
      fmt::format("rwkv-convert --strategy '{}' makes a file that is used in place", to_string(strategy));
  if (question.stored.empty()) {
    fmt::print(
        "A .pth is converted into host memory at each start and stays there, all {} of weights, whatever the "
        "devices; {}.\n",
        human_bytes(weights.all), advice);
  } else if (weights.converted > 0) {
    fmt::print("Of the host's weights {} are converted at each start; {}.\n", human_bytes(weights.converted),
               advice);
  } else {
    fmt::print("The host's weights are used in the file, where processes share them.\n");
  }
}

// A .pth is converted into the host's memory whole, wherever its layers run: that of the streamed ones, too,
// is there already.
void keep_on_host(std::vector<DeviceMemory>& memory, uint64_t all_weights) {
  for (DeviceMemory& m : memory) {
    if (m.device->id() == 0) m.weights = std::max(m.weights + m.streamed, all_weights) - m.streamed;
  }
}

// "", or what a strategy that fits leaves of a device, when `auto` would leave more.
std::string tight_text(const DeviceMemory& m) {
  const uint64_t free = m.device->free_memory(), spare = m.device->spare_memory(free);
  if (m.device->id() == 0 || free - m.total() >= spare) return "";
  return fmt::format("It leaves {} of cuda:{} free; auto and proposals leave {} to the driver.\n",
                     human_bytes(free - m.total()), m.device->id() - 1, human_bytes(spare));
}

// Throws Error when something does not fit, so that a script can ask, too.
void print_verdict(const MemoryQuestion& question, const Strategy& strategy,
                   const std::vector<DeviceMemory>& memory, const Devices& devices) {
  bool known = true;
  std::string tight;
  for (const DeviceMemory& m : memory) {
    const uint64_t free = m.device->free_memory();
    if (free == unknown) {
      known = false;
      fmt::print("This program sees no cuda:{}: --device-memory 8GB plans for one with so much free.\n",
                 m.device->id() - 1);
    } else if (m.total() <= free) {
      tight += tight_text(m);
    } else if (m.device->id() == 0) {
      throw Error(
          fmt::format("strategy '{}': the host has {} free, but {} are needed; choose a smaller precision{}",
                      to_string(strategy), human_bytes(free), human_bytes(m.total()),
                      question.stored.empty() ? ", or convert the .pth" : ""));
    }
  }
  check_device_memory(question.config, strategy, chunk(), devices);
  if (known) fmt::print("It fits.\n{}", tight);
}

}  // namespace

void print_usual_strategies(const MemoryQuestion& question) {
  const Config& config = question.config;
  fmt::print("\nmemory that the usual strategies take, with prompts in chunks of {} tokens\n\n", chunk());
  fmt::print("{:<14} {:>11} {:>11}\n", "strategy", "host", "cuda:0");
  for (const char* text : usual_strategies) {
    Strategy strategy = Strategy::parse(text);
    // Whatever is here, so that every machine prints the same.
    Devices devices = devices_of(strategy, unknown);
    uint64_t host = 0, cuda = 0;
    for (const DeviceMemory& m :
         memory_plan(config, strategy.plan(config.layers()), chunk(), devices, question.stored))
      (m.device->id() == 0 ? host : cuda) += m.total();
    fmt::print("{:<14} {:>11} {:>11}\n", text, bytes_text(host), bytes_text(cuda));
  }
}

void print_memory(const MemoryQuestion& question) {
  const Strategy strategy = resolve(question);
  const char* chosen = question.strategy == "auto" ? " (what auto would choose)" : "";
  std::vector<LayerPlan> plan = strategy.plan(question.config.layers());
  Devices devices = devices_of(strategy, question.device_memory);
  std::vector<DeviceMemory> memory = memory_plan(question.config, plan, chunk(), devices, question.stored);
  std::ranges::sort(memory, {}, [](const DeviceMemory& m) { return m.device->id(); });
  const WeightBytes weights = weight_bytes(question, plan);
  if (question.stored.empty()) keep_on_host(memory, weights.all);
  fmt::print("\nmemory that '{}' takes{}, with prompts in chunks of {} tokens\n\n", to_string(strategy),
             chosen, chunk());
  fmt::print("{:<8} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11}\n", "device", "total", "weights",
             "streamed", "slots", "state", "activations", "free");
  for (const DeviceMemory& m : memory) print_device(m);
  fmt::print("\n");
  print_source(question, strategy, weights);
  print_verdict(question, strategy, memory, devices);
}

}  // namespace rwkv::apps
