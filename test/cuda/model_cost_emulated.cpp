// What strategies cost on a device: launches, bytes, memory, time on the emulated device's clock.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "cuda/emulator/control.h"
#include "model/auto_strategy.h"
#include "model/memory_plan.h"
#include "test/allocations.h"
#include "test/model/checkpoint_model.h"
#include "test/model/run.h"

TEST_SUITE_BEGIN("cuda-model");

namespace rwkv::test {
namespace {

constexpr int64_t vocab = 96;
const ModelShape wide = {.layers = 4, .embd = 32, .ffn = 96, .vocab = vocab, .head = 8, .dtype = DType::f16};

/// A checkpoint of a version, and its models on an emulated device.
struct Fixture {
  TemporaryDirectory directory;
  std::string path = directory / "model.pth";

  void write(Version version, ModelShape shape = wide) const {
    shape.version = version;
    write_checkpoint(path, make_checkpoint(shape));
  }
  [[nodiscard]] std::shared_ptr<const Model> load(const std::string& strategy) const {
    return load_checkpoint(path, strategy);
  }
  /// Bytes of the first device that everything takes.
  [[nodiscard]] size_t needed(const std::string& strategy) const {
    emulator::configure({});
    auto model = load(strategy);
    return memory_plan(model->config(), model->plan(), 256, model->devices()).front().total();
  }
};

emulator::Settings settings(double device_bandwidth = 1e12, double link_bandwidth = 25e9) {
  emulator::Settings s;
  s.device_bandwidth = device_bandwidth;
  s.link_bandwidth = link_bandwidth;
  s.devices = 2;
  return s;
}

/// Per decoded token, when the stream of weights is under way.
struct Cost {
  double launches, kernel_bytes, to_device, seconds;
};
Cost decode_cost(const std::shared_ptr<const Model>& model) {
  constexpr int tokens = 8;
  Executor executor(model, 16);
  State state(model);
  std::vector<float> logits(vocab);
  auto decode = [&] {
    for (int32_t token = 0; token < tokens; token++) executor.forward({&token, 1}, state, logits);
  };
  decode();
  double start = emulator::simulated_seconds();
  emulator::Counters before = emulator::counters();
  decode();
  double seconds = emulator::simulated_seconds() - start;
  emulator::Counters after = emulator::counters();
  return {static_cast<double>(after.launches - before.launches) / tokens,
          static_cast<double>(after.kernel_load_bytes - before.kernel_load_bytes) / tokens,
          static_cast<double>(after.host_to_device_bytes - before.host_to_device_bytes) / tokens,
          seconds / tokens};
}

double streamed_bytes(const Model& model) {
  double bytes = 0;
  for (const StreamedPart& p : model.streamed_parts()) bytes += static_cast<double>(p.bytes);
  return bytes;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture,
                  "cost: launches of a token, at most 10 in a layer of version 7 and 8 of the others") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    write(version);
    for (const char* strategy : {"cuda fp16", "cuda fp16i8", "cuda fp16i4", "cuda fp16 *0+"}) {
      CAPTURE(strategy);
      emulator::configure(settings());
      auto model = load(strategy);
      int64_t head = 1 + std::max<int64_t>(1, std::ranges::count(model->streamed_parts(), wide.layers,
                                                                 &StreamedPart::layer));
      double layers = decode_cost(model).launches - static_cast<double>(head) - 1;  // 1: the embedding
      CHECK(layers <= static_cast<double>(wide.layers) * (version == Version::v7 ? 10 : 8));
    }
    emulator::configure(settings());
    double fused = version == Version::v6 ? 7 : 5;  // a layer's launches when the next one's norm is a tail
    CHECK(decode_cost(load("cuda bf16")).launches == static_cast<double>(wide.layers) * fused + 3);
  }
}

TEST_CASE_FIXTURE(Fixture, "cost: a token reads every weight once, and not the rows of zero inputs") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    write(version, {.layers = 2, .embd = 64, .ffn = 192, .vocab = vocab, .head = 16, .dtype = DType::f16});
    for (const char* strategy : {"cuda fp32", "cuda fp16", "cuda fp16i8", "cuda fp16i4"}) {
      CAPTURE(strategy);
      emulator::configure(settings());
      auto model = load(strategy);
      double bytes = decode_cost(model).kernel_bytes;
      // Vectors are not counted. Of a random model's relu about half is zero.
      double dense = 0, rows = 0;
      for (const ModelTensor& t : model_tensors(model->config(), model->plan())) {
        bool matrix = t.spec.role == Role::matrix || t.spec.role == Role::low_rank;
        (matrix ? dense : rows) +=
            matrix || t.spec.role == Role::rows ? static_cast<double>(t.form.bytes()) : 0;
      }
      CHECK(bytes <= 1.03 * (dense + 0.7 * rows));
      CHECK(bytes >= 0.5 * dense);  // what fills up a block or a row is not read
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "streaming: a token takes as long as copying or computing, whichever is longer") {
  write(Version::v7);
  struct {
    double device, link;
  } speeds[] = {{1e12, 1e8}, {1e12, 1e9}, {1e9, 1e9}, {1e8, 25e9}, {1e9, 6e8}};
  for (const auto& speed : speeds) {
    CAPTURE(speed.device);
    CAPTURE(speed.link);
    for (const char* strategy : {"cuda fp16 *0+", "cuda fp16 *2+", "cuda fp16i8 *1+"}) {
      CAPTURE(strategy);
      emulator::Settings s = settings(speed.device, speed.link);
      s.graph_kernel_seconds = s.kernel_seconds;
      emulator::configure(s);
      auto model = load(strategy);
      Cost cost = decode_cost(model);
      double copy = streamed_bytes(*model) / speed.link;
      double compute = cost.launches * s.kernel_seconds + cost.kernel_bytes / speed.device;
      CHECK(cost.seconds <= 1.05 * std::max(copy, compute));
      CHECK(cost.seconds >= 0.99 * std::max(copy, compute));
    }
  }
}

TEST_CASE_FIXTURE(
    Fixture,
    "streaming: every weight that is not resident is copied once for a token, and once for a prompt") {
  for (Version version : {Version::v4, Version::v6, Version::v7}) {
    write(version);
    emulator::configure(settings());
    auto model = load("cuda fp16 *2+");
    double embedded = static_cast<double>(wide.embd) * 4;
    CHECK(decode_cost(model).to_device == streamed_bytes(*model));
    Executor executor(model, 16);
    State state(model);
    std::vector<int32_t> prompt(60);
    for (size_t i = 0; i < prompt.size(); i++) prompt[i] = static_cast<int32_t>(i) % vocab;
    std::vector<float> logits(vocab);
    executor.forward({prompt.data(), 1}, state, logits);
    uint64_t before = emulator::counters().host_to_device_bytes;
    executor.forward(prompt, state, logits);
    emulator::simulated_seconds();  // also what is copied ahead for the next pass
    double copied = static_cast<double>(emulator::counters().host_to_device_bytes - before);
    CHECK(copied <= streamed_bytes(*model) + embedded * 60 +
                        stream_slots * static_cast<double>(slot_bytes(model->streamed_parts())));
  }
}

TEST_CASE_FIXTURE(Fixture, "streaming: a prompt without its logits and then a token, again and again") {
  write(Version::v7);
  for (const char* strategy : {"cuda fp32 *0+", "cuda fp32 *3+", "cuda fp32 *4+", "cuda fp32 *5+"}) {
    CAPTURE(strategy);
    for (uint64_t seed = 1; seed <= 4; seed++) {
      emulator::Settings s = settings();
      s.seed = seed;
      emulator::configure(s);
      auto model = load(strategy), cpu = load("cpu fp32");
      State state(model), other(cpu);
      Executor executor(model, 4), reference(cpu, 4);
      std::vector<int32_t> prompt = {5, 4, 3, 2, 1, 0, 9, 8, 7};
      std::vector<float> logits(vocab), expected(vocab);
      for (int round = 0; round < 3; round++) {
        executor.forward(prompt, state, {});
        executor.forward({prompt.data(), 1}, state, logits);
        reference.forward(prompt, other, {});
        reference.forward({prompt.data(), 1}, other, expected);
        for (size_t i = 0; i < logits.size(); i++) CHECK(std::abs(logits[i] - expected[i]) <= 1e-4f);
      }
    }
    CHECK(emulator::report() == "");
    CHECK(emulator::live().total() == 0);
  }
}

TEST_CASE_FIXTURE(Fixture, "memory: a device holds what the plan says") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    write(version);
    for (const char* strategy :
         {"cuda fp16i8", "cuda fp16i4", "cuda fp16 *2+", "cuda fp16 *4+", "cuda fp32 *2 -> cpu fp32"}) {
      CAPTURE(strategy);
      emulator::configure(settings());
      auto model = load(strategy);
      Executor executor(model, 16);
      State state(model);
      std::vector<float> logits(vocab);
      const std::vector<int32_t> tokens(20, 7);
      executor.forward(tokens, state, logits);
      executor.forward({tokens.data(), 1}, state, logits);
      for (const DeviceMemory& m : memory_plan(model->config(), model->plan(), 16, model->devices())) {
        if (m.device->id() == 0) continue;
        auto peak = static_cast<double>(emulator::counters().peak_device_bytes);
        CHECK(peak <= 1.05 * static_cast<double>(m.total()));
        CHECK(peak >= 0.95 * static_cast<double>(m.total()));
      }
    }
  }
}

TEST_CASE_FIXTURE(Fixture,
                  "memory: what does not fit is refused before it is loaded, with a strategy that fits") {
  write(Version::v7, {.layers = 12, .embd = 64, .ffn = 256, .vocab = vocab, .head = 16, .dtype = DType::f16});
  emulator::Settings small = settings();
  small.device_memory = needed("cuda fp16") - 200000;
  emulator::configure(small);
  for (const char* strategy : {"cuda fp16", "cuda fp16 -> cuda fp16i8", "cuda fp16 *13"}) {
    CAPTURE(strategy);
    std::string error = error_of([&] { (void)load(strategy); });
    CHECK(emulator::counters().peak_device_bytes == 0);
    CAPTURE(error);
    auto at = error.find("fits with: '");
    REQUIRE(at != std::string::npos);
    CHECK(error.find("cuda:0") != std::string::npos);
    std::string fitting = error.substr(at + 12, error.find('\'', at + 12) - at - 12);
    CHECK(fitting.find('+') != std::string::npos);
    { Executor executor(load(fitting), 256); }
    CHECK(emulator::live().total() == 0);
    emulator::configure(small);
  }
  small.device_memory = 1000;
  emulator::configure(small);
  CHECK(error_of([&] { (void)load("cuda fp16"); }).find("use a cpu strategy") != std::string::npos);
}

TEST_CASE_FIXTURE(Fixture, "auto: everything on the device when it fits, else what is fastest") {
  write(Version::v7, {.layers = 12, .embd = 64, .ffn = 256, .vocab = vocab, .head = 16, .dtype = DType::f16});
  auto choose = [&](size_t memory, int count, const Rates& rates, const char* file = "cpu fp16") {
    emulator::Settings s = settings();
    s.device_memory = memory;
    s.devices = count;
    emulator::configure(s);
    auto cpu = load(file);
    std::vector<std::unique_ptr<Device>> devices;
    devices.push_back(cpu::open(1));
    for (int i = 0; i < count; i++) devices.push_back(cuda::open(i));
    Strategy chosen = choose_strategy(cpu->config(), cpu->strategy(), 256, rates, devices);
    if (count > 0) devices.clear();
    load_checkpoint(path, to_string(chosen));
    return to_string(chosen);
  };
  const Rates fast_link = {1e12, 5e11, 2e10}, slow_link = {1e12, 1e9, 2e10};
  CHECK(choose(64 << 20, 0, fast_link) == "cpu fp16i8");
  CHECK(choose(64 << 20, 0, fast_link, "cpu bf16") == "cpu bf16i8");
  CHECK(choose(1000, 1, fast_link) == "cpu fp16i8");
  const Rates slow_device = {1e8, 5e11, 2e10};
  CHECK(choose(64 << 20, 1, slow_device) == "cpu fp16i8");
  CHECK(choose(64 << 20, 1, fast_link) == "cuda fp16i8");
  CHECK(choose(64 << 20, 2, fast_link).find(" -> cuda:1 fp16i8") != std::string::npos);
  size_t too_small = needed("cuda fp16i8") - 100000;
  CHECK(choose(too_small, 1, fast_link).ends_with("+"));
  CHECK(choose(too_small, 1, slow_link).find(" -> cpu fp16i8") != std::string::npos);
  // What is int4 stays int4, and nothing else becomes it, even where it would fit.
  CHECK(choose(64 << 20, 0, fast_link, "cpu fp32i4") == "cpu fp32i4");
  CHECK(choose(64 << 20, 1, fast_link, "cpu fp32i4") == "cuda fp16i4");
  CHECK(choose(64 << 20, 1, fast_link, "cpu bf16i4") == "cuda bf16i4");
  CHECK(choose(needed("cuda fp16i4") + 100000, 1, slow_link).find("i4") == std::string::npos);
  too_small = needed("cuda fp16i4") - 100000;
  CHECK(choose(too_small, 1, fast_link, "cpu fp16i4").ends_with("+"));
  CHECK(choose(too_small, 1, slow_link, "cpu fp16i4").find(" -> cpu fp16i4") != std::string::npos);
}

TEST_CASE_FIXTURE(Fixture, "executor: with CUDA, too, a pass allocates nothing") {
  leave_out_allocations(emulator::inside_runtime);
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    write(version);
    for (const char* strategy : {"cuda fp16i8 *2+", "cuda:0 fp16 *2 -> cuda:1 fp16 *2 -> cpu fp32"}) {
      CAPTURE(strategy);
      emulator::configure(settings());
      auto model = load(strategy);
      Executor executor(model, 16);
      State state(model);
      std::vector<float> logits(vocab);
      const std::vector<int32_t> tokens(20, 7);
      auto pass = [&] {
        executor.forward(tokens, state, logits);
        for (int i = 0; i < 4; i++) executor.forward({tokens.data(), 1}, state, logits);
      };
      pass();
      uint64_t before = allocations();
      size_t device_before = emulator::counters().peak_device_bytes;
      pass();
      CHECK(allocations() == before);
      CHECK(emulator::counters().peak_device_bytes == device_before);
    }
  }
  leave_out_allocations(nullptr);
}

}  // namespace rwkv::test

TEST_SUITE_END();
