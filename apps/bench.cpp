// Times a model: prefill, decode, loading, and how near decode comes to the memory's limit.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "apps/common/limits.h"
#include "apps/common/model_option.h"
#include "apps/common/program.h"
#include "apps/common/progress.h"
#include "core/json.h"
#include "model/executor.h"

namespace rwkv::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  ModelOptions model;
  int64_t prompt_tokens = 256, decode_tokens = 32, chunk = 256;
  int repeats = 3;
  bool json = false;
};

struct Result {
  double load_seconds = 0, prefill = 0, decode = 0, bandwidth = 0;
  uint64_t weight_bytes = 0;
  PeakMemory memory{};
  std::string strategy, device;
  int threads = 0;
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

Result measure(const Options& options) {
  Result r;
  std::shared_ptr<const Model> model;
  r.load_seconds = seconds_of([&] { model = open_model(options.model); });
  r.strategy = to_string(model->strategy());
  r.device = model->device(0).description();
  r.threads = model->device(0).threads();
  r.weight_bytes = model->weight_bytes_per_token();
  Executor executor(model, std::min(options.chunk, options.prompt_tokens));
  std::vector<float> logits(static_cast<size_t>(model->config().n_vocab));
  auto prompt = some_tokens(options.prompt_tokens, model->config().n_vocab);
  auto decoded = some_tokens(options.decode_tokens, model->config().n_vocab);
  std::vector<double> prefill, decode;
  for (int i = 0; i < options.repeats + 1; i++) {
    State state(model);
    double p = seconds_of([&] { executor.forward(prompt, state, logits); });
    double d = seconds_of([&] {
      for (const int32_t& token : decoded) executor.forward({&token, 1}, state, logits);
    });
    if (i == 0) continue;  // the first one reads the file into memory
    prefill.push_back(static_cast<double>(prompt.size()) / p);
    decode.push_back(static_cast<double>(decoded.size()) / d);
  }
  r.prefill = median(prefill);
  r.decode = median(decode);
  r.memory = measure_peak_memory();
  r.bandwidth = measure_read_bandwidth(r.threads);
  return r;
}

void print_json(const Result& r) {
  Json::Object object = {{"prefill_tokens_per_second", {r.prefill}},
                         {"decode_tokens_per_second", {r.decode}},
                         {"weight_bytes_per_token", {r.weight_bytes}},
                         {"read_bytes_per_second", {static_cast<double>(r.weight_bytes) * r.decode}},
                         {"read_bytes_per_second_limit", {r.bandwidth}},
                         {"load_seconds", {r.load_seconds}},
                         {"peak_resident_bytes", {r.memory.resident}},
                         {"resident_bytes_without_files", {r.memory.without_files}},
                         {"strategy", {r.strategy}},
                         {"device", {r.device}},
                         {"threads", {static_cast<uint64_t>(r.threads)}}};
  fmt::print("{}\n", to_string(Json{object}));
}

void print_table(const Result& r, const Options& options) {
  double reached = static_cast<double>(r.weight_bytes) * r.decode;
  fmt::print("strategy   {} on {}\n", r.strategy, r.device);
  fmt::print("load       {:.3f} s\n", r.load_seconds);
  fmt::print("prefill    {:.1f} tok/s ({} tokens, chunks of {})\n", r.prefill, options.prompt_tokens,
             options.chunk);
  fmt::print("decode     {:.2f} tok/s ({} tokens), {} of weights per token\n", r.decode,
             options.decode_tokens, human_bytes(r.weight_bytes));
  fmt::print("reading    {:.1f} GB/s, {:.0f}% of the {:.1f} GB/s that memory gives\n", reached / 1e9,
             100 * reached / r.bandwidth, r.bandwidth / 1e9);
  fmt::print("memory     {} at most, {} besides mapped files\n",
             human_bytes(static_cast<uint64_t>(r.memory.resident)),
             human_bytes(static_cast<uint64_t>(r.memory.without_files)));
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
       "  bench model.rwkv --strategy 'cpu bf16i8' --prompt-tokens 512 --threads 4 --json"},
      [&](CLI::App& app) {
        add_model_options(app, options.model, false);
        app.add_option("--prompt-tokens", options.prompt_tokens, "Tokens of the prompt (default 256)")
            ->check(CLI::Range(1, 1 << 24));
        app.add_option("--decode-tokens", options.decode_tokens, "Tokens generated (default 32)")
            ->check(CLI::Range(1, 1 << 24));
        app.add_option("--chunk", options.chunk, "Tokens that go through a layer at once (default 256)")
            ->check(CLI::Range(1, 65536));
        app.add_option("--repeats", options.repeats, "Repetitions of which the median counts (default 3)")
            ->check(CLI::Range(1, 1000));
        app.add_flag("--json", options.json, "One JSON object");
      },
      [&] {
        Result result = measure(options);
        options.json ? print_json(result) : print_table(result, options);
      });
}
