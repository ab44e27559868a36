// Times a model: prefill, decode, loading, and how near decode comes to the memory's limit.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>

#include "apps/common/limits.h"
#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "core/json.h"
#include "cuda/simulation.h"
#include "model/auto_strategy.h"
#include "model/executor.h"
#include "model/memory_plan.h"
#include "model/text/sampler.h"

namespace rwkv::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  ModelOptions model;
  int64_t prompt_tokens = 256, decode_tokens = 32;
  int repeats = 3;
  bool json = false, profile = false;
  double device_bandwidth = 1000, link_bandwidth = 25;  // GB/s, of emulated devices
};

// A decoded token on emulated devices.
struct Simulated {
  cuda::SimulatedWork work;  // of all tokens
  double seconds = 0;        // per token
  double bound = 0;          // what reading and fetching every weight once takes
  double tokens = 0;
};

// Where the time of a prefill or of decoding goes.
struct Profile {
  double tokens = 0, seconds = 0;
  OperatorTimes operators;
};

struct Result {
  std::shared_ptr<const Model> model;
  double load_seconds = 0, prefill = 0, decode = 0, sampling = 0, bandwidth = 0;  // sampling: seconds a token
  uint64_t weight_bytes = 0, operations = 0;  // operations of a token of a prefill
  MemoryUse memory{};
  std::string strategy, device;
  int threads = 0;
  std::vector<DeviceMemory> devices;  // CUDA devices
  Simulated simulated;
  Profile prefill_profile, decode_profile;
};

double seconds_of(const std::function<void()>& action) {
  auto start = Clock::now();
  action();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Tokens that are not all the same, so that the rows which are skipped differ too.
std::vector<int32_t> some_tokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens;
  uint64_t random = 1;
  for (int64_t i = 0; i < count; i++) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    tokens.push_back(static_cast<int32_t>((random >> 33) % static_cast<uint64_t>(vocab)));
  }
  return tokens;
}

// A multiplication and an addition for each weight, but for the head, which a prefill needs once.
uint64_t prefill_operations(const Model& model) {
  uint64_t weights = 0;
  for (const ModelTensor& t : model_tensors(model.config(), model.plan())) {
    const bool matrix = t.spec.role != Role::vector && t.spec.role != Role::table;
    if (matrix && t.layer < model.config().n_layer)
      weights += static_cast<uint64_t>(t.spec.rows * t.spec.cols);
  }
  return 2 * weights;
}

bool on_cuda(const Model& model) { return model.devices().size() > 1; }

Simulated simulate(Executor& executor, State& state, std::span<const int32_t> tokens, std::span<float> logits,
                   const Options& options) {
  Simulated s;
  const Model& model = executor.model();
  auto decode = [&] {
    for (const int32_t& token : tokens) executor.forward({&token, 1}, state, logits);
  };
  decode();  // so that the stream of weights is under way
  cuda::take_simulated_work();
  decode();
  s.work = cuda::take_simulated_work();
  s.tokens = static_cast<double>(tokens.size());
  s.seconds = s.work.seconds / s.tokens;
  s.bound = token_seconds(model.config(), model.plan(),
                          {options.device_bandwidth * 1e9, options.link_bandwidth * 1e9,
                           std::numeric_limits<double>::infinity()});
  return s;
}

// With the penalties of a reply of some length.
double sampling_seconds(std::span<const float> logits, std::span<const int32_t> reply) {
  constexpr int draws = 50;
  Sampler sampler({.top_p = 0.3f, .presence_penalty = 0.5f, .frequency_penalty = 0.5f});
  for (const int32_t& token : reply) sampler.accept(token, "a");
  sampler.sample(logits);  // memory is allocated
  return seconds_of([&] {
           for (int i = 0; i < draws; i++) sampler.accept(sampler.sample(logits), "a");
         }) /
         draws;
}

Profile profile(Executor& executor, int64_t tokens, const std::function<void()>& action) {
  Profile p;
  p.tokens = static_cast<double>(tokens);
  executor.measure(&p.operators);
  p.seconds = seconds_of(action);
  executor.measure(nullptr);
  return p;
}

Result measure(const Options& options) {
  Result r;
  if (cuda::simulated()) cuda::set_bandwidths(options.device_bandwidth * 1e9, options.link_bandwidth * 1e9);
  r.load_seconds = seconds_of([&] { r.model = open_model(options.model); });
  const auto& model = r.model;
  r.strategy = to_string(model->strategy());
  r.device = describe_devices(*model);
  r.threads = model->devices().front()->threads();
  r.weight_bytes = model->weight_bytes_per_token();
  r.operations = prefill_operations(*model);
  Executor executor(model, std::min(options.model.chunk, options.prompt_tokens));
  std::vector<float> logits(static_cast<size_t>(model->config().n_vocab));
  auto prompt = some_tokens(options.prompt_tokens, model->config().n_vocab);
  auto decoded = some_tokens(options.decode_tokens, model->config().n_vocab);
  std::vector<double> prefill, decode;
  State state(model);
  auto run_prefill = [&] { executor.forward(prompt, state, logits); };
  auto run_decode = [&] {
    for (const int32_t& token : decoded) executor.forward({&token, 1}, state, logits);
  };
  for (int i = 0; i < options.repeats + 1; i++) {
    state.reset();
    double p = seconds_of(run_prefill), d = seconds_of(run_decode);
    if (i == 0) continue;  // the first one reads the file into memory
    prefill.push_back(static_cast<double>(prompt.size()) / p);
    decode.push_back(static_cast<double>(decoded.size()) / d);
  }
  r.prefill = median(prefill);
  r.decode = median(decode);
  r.sampling = sampling_seconds(logits, prompt);
  r.memory = measure_memory();
  r.bandwidth = on_cuda(*model) ? measure_rates(model->devices()).device : measure_read_bandwidth(r.threads);
  for (const DeviceMemory& m :
       memory_plan(model->config(), model->plan(), executor.chunk(), model->devices())) {
    if (m.device->id() != 0) r.devices.push_back(m);
  }
  if (options.profile) {
    state.reset();
    r.prefill_profile = profile(executor, options.prompt_tokens, run_prefill);
    r.decode_profile = profile(executor, options.decode_tokens, run_decode);
  }
  if (on_cuda(*model) && cuda::simulated()) {
    state.reset();
    r.simulated = simulate(executor, state, decoded, logits, options);
  }
  return r;
}

Json json_of(const Profile& p) {
  Json::Array operators;
  for (const OperatorTime& o : p.operators.sorted()) {
    operators.push_back(
        Json{Json::Object{{"operator", {o.name}},
                          {"calls_per_token", {static_cast<double>(o.calls) / p.tokens}},
                          {"seconds_per_token", {o.seconds / p.tokens}},
                          {"weight_bytes_per_second", {static_cast<double>(o.weight_bytes) / o.seconds}}}});
  }
  return Json{
      Json::Object{{"seconds_per_token", {p.seconds / p.tokens}}, {"operators", {std::move(operators)}}}};
}

void print_json(const Result& r) {
  Json::Object object = {{"prefill_tokens_per_second", {r.prefill}},
                         {"decode_tokens_per_second", {r.decode}},
                         {"sampling_seconds_per_token", {r.sampling}},
                         {"weight_bytes_per_token", {r.weight_bytes}},
                         {"prefill_operations_per_token", {r.operations}},
                         {"read_bytes_per_second", {static_cast<double>(r.weight_bytes) * r.decode}},
                         {"read_bytes_per_second_limit", {r.bandwidth}},
                         {"load_seconds", {r.load_seconds}},
                         {"peak_resident_bytes", {r.memory.peak}},
                         {"resident_bytes_without_files", {r.memory.without_files}},
                         {"huge_page_bytes", {r.memory.huge_pages}},
                         {"strategy", {r.strategy}},
                         {"device", {r.device}},
                         {"threads", {static_cast<uint64_t>(r.threads)}}};
  uint64_t device_bytes = 0;
  for (const DeviceMemory& m : r.devices) device_bytes += m.total();
  if (!r.devices.empty()) object.push_back({"device_bytes", Json{device_bytes}});
  if (const Simulated& s = r.simulated; s.tokens > 0) {
    auto add = [&](const char* name, double value) { object.push_back({name, Json{value}}); };
    add("simulated_launches_per_token", static_cast<double>(s.work.launches) / s.tokens);
    add("simulated_kernel_bytes_per_token", static_cast<double>(s.work.kernel_bytes) / s.tokens);
    add("simulated_to_device_bytes_per_token", static_cast<double>(s.work.to_device_bytes) / s.tokens);
    add("simulated_to_host_bytes_per_token", static_cast<double>(s.work.to_host_bytes) / s.tokens);
    add("simulated_between_devices_bytes_per_token", static_cast<double>(s.work.between_bytes) / s.tokens);
    add("simulated_seconds_per_token", s.seconds);
    add("simulated_seconds_bound", s.bound);
  }
  if (r.decode_profile.tokens > 0) {
    object.push_back({"prefill_profile", json_of(r.prefill_profile)});
    object.push_back({"decode_profile", json_of(r.decode_profile)});
  }
  fmt::print("{}\n", to_string(Json{object}));
}

void print_profile(const char* what, const Profile& p) {
  fmt::print("\n{:<10} {:.1f} us a token, operators one by one\n", what, p.seconds / p.tokens * 1e6);
  double operators = 0;
  auto row = [&](double seconds, const std::string& rest) {
    fmt::print("  {:5.1f}% {:9.1f} us  {}\n", 100 * seconds / p.seconds, seconds / p.tokens * 1e6, rest);
  };
  for (const OperatorTime& o : p.operators.sorted()) {
    operators += o.seconds;
    const std::string rate =
        o.weight_bytes == 0
            ? ""
            : fmt::format("{:.1f} GB/s", static_cast<double>(o.weight_bytes) / o.seconds / 1e9);
    row(o.seconds, fmt::format("{:10}  {}", rate, o.name));
  }
  row(p.seconds - operators, fmt::format("{:10}  everything else", ""));
}

void print_device(const DeviceMemory& m) {
  fmt::print("device     cuda:{}: {} of its memory: weights {}, slots {}, state {}, activations {}\n",
             m.device->id() - 1, human_bytes(m.total()), human_bytes(m.weights), human_bytes(m.slots),
             human_bytes(m.state), human_bytes(m.activations));
}

void print_simulated(const Simulated& s, const Options& options) {
  auto per_token = [&](uint64_t count) { return static_cast<double>(count) / s.tokens; };
  auto bytes = [&](uint64_t count) { return human_bytes(static_cast<uint64_t>(per_token(count))); };
  fmt::print(
      "simulated  a token: {:.1f} launches; kernels read {}; copies: {} to devices, {} to the host, {} "
      "between\n",
      per_token(s.work.launches), bytes(s.work.kernel_bytes), bytes(s.work.to_device_bytes),
      bytes(s.work.to_host_bytes), bytes(s.work.between_bytes));
  fmt::print(
      "           {:.3f} ms at {:.0f} GB/s of the device and {:.0f} GB/s of the link, which bound it to "
      "{:.3f} ms\n",
      s.seconds * 1e3, options.device_bandwidth, options.link_bandwidth, s.bound * 1e3);
}

void print_table(const Result& r, const Options& options) {
  double reached = static_cast<double>(r.weight_bytes) * r.decode;
  fmt::print("strategy   {} on {}\n", r.strategy, r.device);
  fmt::print("load       {:.3f} s\n", r.load_seconds);
  fmt::print("prefill    {:.1f} tok/s ({} tokens, chunks of {})\n", r.prefill, options.prompt_tokens,
             options.model.chunk);
  fmt::print("decode     {:.2f} tok/s ({} tokens), {} of weights per token\n", r.decode,
             options.decode_tokens, human_bytes(r.weight_bytes));
  fmt::print("sampling   {:.1f} us a token, {:.1f}% of decoding it\n", r.sampling * 1e6,
             100 * r.sampling * r.decode);
  fmt::print("reading    {:.1f} GB/s, {:.0f}% of the {:.1f} GB/s that memory gives\n", reached / 1e9,
             100 * reached / r.bandwidth, r.bandwidth / 1e9);
  auto bytes = [](double count) { return human_bytes(static_cast<uint64_t>(count)); };
  fmt::print("memory     {} at most, {} besides mapped files; {} in huge pages\n", bytes(r.memory.peak),
             bytes(r.memory.without_files), bytes(r.memory.huge_pages));
  for (const DeviceMemory& m : r.devices) print_device(m);
  if (r.simulated.tokens > 0) print_simulated(r.simulated, options);
  if (r.decode_profile.tokens > 0) {
    print_profile("prefill", r.prefill_profile);
    print_profile("decode", r.decode_profile);
  }
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  using namespace rwkv::apps;
  Options options;
  return run_program(
      argc, argv,
      {"bench",
       "Times a model: prefill and decode (medians), loading and memory, and which part of the memory's read "
       "bandwidth,\n"
       "measured in the same run, decode reaches. Weights that are skipped because their input is zero count "
       "as read.",
       "  bench model.rwkv\n"
       "  bench model.rwkv --strategy 'cpu bf16i8' --prompt-tokens 512 --threads 4 --json\n"
       "  bench model.rwkv --profile"},
      [&](CLI::App& app) {
        add_model_options(app, options.model, false);
        app.add_option("--prompt-tokens", options.prompt_tokens, "Tokens of the prompt (default 256)")
            ->check(CLI::Range(1, 1 << 24));
        app.add_option("--decode-tokens", options.decode_tokens, "Tokens generated (default 32)")
            ->check(CLI::Range(1, 1 << 24));
        app.add_option("--repeats", options.repeats, "Repetitions of which the median counts (default 3)")
            ->check(CLI::Range(1, 1000));
        app.add_option("--device-bandwidth", options.device_bandwidth,
                       "GB/s of an emulated CUDA device's memory (default 1000)")
            ->check(finite_range(1e-3, 1e6));
        app.add_option("--link-bandwidth", options.link_bandwidth, "GB/s of the link to it (default 25)")
            ->check(finite_range(1e-3, 1e6));
        app.add_flag("--profile", options.profile, "Also where the time goes, by operator");
        app.add_flag("--json", options.json, "One JSON object");
      },
      [&] {
        Result result = measure(options);
        options.json ? print_json(result) : print_table(result, options);
      });
}
