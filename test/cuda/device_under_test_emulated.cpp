#include "test/cuda/device_under_test.h"

#include <doctest/doctest.h>

#include <cstdint>

#include "cuda/emulator/control.h"

namespace rwkv::test {
namespace {

using emulator::Order;
using emulator::Streams;

constexpr Order orders[] = {Order::ascending, Order::descending, Order::by_warp, Order::random};
constexpr Streams policies[] = {Streams::eager, Streams::late, Streams::rush, Streams::random};

}  // namespace

bool emulated() { return true; }

void on_devices(const Devices& devices, int runs, const std::function<void()>& test) {
  emulator::Settings settings;
  settings.devices = devices.count;
  settings.device_memory = devices.memory;
  for (int run = devices.first_run; run < devices.first_run + runs; run++) {
    settings.seed = static_cast<uint64_t>(run) + 1;
    settings.order = orders[run % 4];
    settings.streams = policies[(run + run / 4) % 4];
    emulator::configure(settings);
    INFO("order " << static_cast<int>(settings.order) << ", streams " << static_cast<int>(settings.streams)
                  << ", seed " << settings.seed);
    test();
    CHECK(emulator::report() == "");
    CHECK(emulator::live().total() == 0);
  }
}

}  // namespace rwkv::test
