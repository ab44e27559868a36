// A device that is planned for must ask for what a device that is there asks for.
#include "model/planned_device.h"

#include <doctest/doctest.h>

#include <regex>

#include "core/error.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "model/memory_plan.h"
#include "model/state.h"
#include "test/cuda/device_under_test.h"
#include "test/support.h"

TEST_SUITE_BEGIN("cuda");

namespace rwkv::test {
namespace {

const Config config = {.version = Version::v7,
                       .n_layer = 12,
                       .n_embd = 768,
                       .n_att = 768,
                       .n_ffn = 3072,
                       .n_vocab = 65536,
                       .head_size = 64,
                       .decay_rank = 64,
                       .a_rank = 64,
                       .v_rank = 32,
                       .g_rank = 128};

using Machine = std::vector<std::unique_ptr<Device>>;

Machine with(std::unique_ptr<Device> cuda) {
  Machine devices;
  devices.push_back(cpu::open(1));
  devices.push_back(std::move(cuda));
  return devices;
}

std::vector<DeviceMemory> plan_of(const char* strategy, const Machine& devices) {
  return memory_plan(config, Strategy::parse(strategy).plan(config.layers()), 256, devices);
}

}  // namespace

TEST_CASE("planned device: every strategy takes what it takes of a device that is here") {
  on_device(1, [] {
    Machine here = with(cuda::open(0)), planned = with(plan_cuda_device(0, 1000));
    for (const char* strategy : {"cuda fp32", "cuda fp16", "cuda bf16i8", "cuda fp16i4", "cuda fp16i8 *3+",
                                 "cuda fp16 *4 -> cpu fp32", "cpu bf16"}) {
      CAPTURE(strategy);
      auto expected = plan_of(strategy, here), actual = plan_of(strategy, planned);
      REQUIRE(actual.size() == expected.size());
      for (size_t i = 0; i < actual.size(); i++) {
        CHECK(actual[i].device->id() == expected[i].device->id());
        CHECK(actual[i].weights == expected[i].weights);
        CHECK(actual[i].streamed == expected[i].streamed);
        CHECK(actual[i].slots == expected[i].slots);
        CHECK(actual[i].state == expected[i].state);
        CHECK(actual[i].activations == expected[i].activations);
      }
    }
  });
}

TEST_CASE("planned device: streamed weights wait in host memory, and nothing is lost or counted twice") {
  Machine devices = with(plan_cuda_device(0, 0));
  auto weights = [&](const char* strategy, uint8_t id) {
    uint64_t bytes = 0;
    for (const DeviceMemory& m : plan_of(strategy, devices))
      bytes += m.device->id() == id ? m.weights + m.streamed : 0;
    return bytes;
  };
  const uint64_t all = weights("cuda fp16", 0) + weights("cuda fp16", 1);
  for (const char* strategy : {"cuda fp16 *0+", "cuda fp16 *5+", "cuda fp16 *12+", "cuda fp16 *13"}) {
    CAPTURE(strategy);
    CHECK(weights(strategy, 0) + weights(strategy, 1) == all);
  }
  CHECK(weights("cuda fp16 *0+", 0) > weights("cuda fp16 *5+", 0));
}

TEST_CASE("planned device: what fits is found for any size, and is said in one line") {
  const Strategy wanted = Strategy::parse("cuda fp16");
  const uint64_t needed = plan_of("cuda fp16", with(plan_cuda_device(0, 0))).front().total();
  CHECK(memory_shortage(config, wanted, 256, with(plan_cuda_device(0, uint64_t{1} << 40))).empty());
  int64_t before = -1;
  for (uint64_t free : {needed / 2, needed * 3 / 4, needed * 7 / 8}) {
    Machine devices = with(plan_cuda_device(0, free));
    Strategy fitting = fitting_strategy(config, wanted, 256, devices);
    REQUIRE(fitting.segments.size() == 1);
    CHECK(memory_shortage(config, fitting, 256, devices).empty());
    CHECK(*fitting.segments[0].layers > before);
    before = *fitting.segments[0].layers;
  }
  std::string shortage = memory_shortage(config, wanted, 256, with(plan_cuda_device(0, 1000)));
  CHECK(shortage.ends_with("nothing fits: use a cpu strategy"));
  CHECK(shortage.find('\n') == std::string::npos);
  CHECK(error_of([&] { check_device_memory(config, wanted, 256, with(plan_cuda_device(0, 1000))); }) ==
        shortage);
}

TEST_CASE("planned device: what fits instead is proposed, with layers streamed and with layers on the CPU") {
  struct Case {
    const char* strategy;
    uint64_t free;
    const char* proposed;  // N for the numbers
  };
  constexpr const char* half_split = "'cuda fp16 *N -> cpu fp16' (layers on the CPU)";
  for (const Case& c :
       {Case{"cuda fp16", 250'000'000,
             "'cuda fp16 *N+' (layers streamed), or 'cuda fp16 *N -> cpu fp16' (layers on the CPU)"},
        {"cuda fp16", 100'000'000,
         "'cuda fp16i8 *N+' (weights in int8, layers streamed), or 'cuda fp16 *N -> cpu fp16' (layers on the "
         "CPU)"},
        {"cuda fp16", 80'000'000, half_split},
        {"cuda fp16 *3+", 80'000'000, half_split},
        {"cuda fp16 *13", 80'000'000, half_split},
        {"cuda fp16 *12 -> cpu fp16", 80'000'000, half_split},
        {"cuda bf16i8", 80'000'000, "'cuda bf16i8 *N -> cpu bf16i8' (layers on the CPU)"},
        {"cuda fp32 *5 -> cuda fp16", 120'000'000,
         "'cuda fp32i8 *N -> cuda fp16i8 *N -> cpu fp16i8' (weights in int8, layers on the CPU)"}}) {
    CAPTURE(c.strategy);
    CAPTURE(c.free);
    Machine devices = with(plan_cuda_device(0, c.free));
    const std::string shortage = memory_shortage(config, Strategy::parse(c.strategy), 256, devices);
    const size_t at = shortage.find("; fits with: ");
    REQUIRE(at != std::string::npos);
    const std::string proposed = shortage.substr(at + 13);
    CHECK(std::regex_replace(proposed, std::regex("[*][0-9]+"), "*N") == c.proposed);
    const std::regex quoted("'([^']*)'");
    for (std::sregex_iterator i(proposed.begin(), proposed.end(), quoted), end; i != end; ++i) {
      CHECK(memory_shortage(config, Strategy::parse((*i)[1].str()), 256, devices).empty());
    }
  }
}

TEST_CASE("planned device: it gives no memory") {
  auto device = plan_cuda_device(3, 1000);
  CHECK(device->id() == 4);
  CHECK(device->description() == "cuda:3");
  CHECK(device->free_memory() == 1000);
  CHECK(error_of([&] { device->allocate(1); }) == "cuda:3 is planned for, not here");
  CHECK(!error_of([&] { device->make_ops(); }).empty());
}

TEST_CASE("planned device: what is chosen for it leaves memory to the driver, what is asked for need not") {
  const Strategy whole = Strategy::parse("cuda fp16");
  const Machine machine = with(plan_cuda_device(0, 1000));
  uint64_t needed = 0;
  for (const DeviceMemory& m : plan_of("cuda fp16", machine)) needed += m.device->id() == 1 ? m.total() : 0;
  auto chosen = [&](uint64_t free) {
    return fitting_strategy(config, whole, 256, with(plan_cuda_device(0, free)));
  };
  CHECK(memory_shortage(config, whole, 256, with(plan_cuda_device(0, needed))) == "");
  CHECK(chosen(needed).segments != whole.segments);
  CHECK(chosen(needed + needed / 8).segments == whole.segments);
}

}  // namespace rwkv::test

TEST_SUITE_END();
