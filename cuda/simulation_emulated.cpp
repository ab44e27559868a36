#include "cuda/emulator/control.h"
#include "cuda/simulation.h"

namespace rwkv::cuda {
namespace {

// Since the device began. Its clock stays as it is: events remember times of it.
SimulatedWork all_work() {
  const double seconds = emulator::simulated_seconds();
  const emulator::Counters c = emulator::counters();
  return {c.launches, c.kernel_load_bytes, c.host_to_device_bytes, c.device_to_host_bytes, c.peer_bytes,
          seconds};
}

SimulatedWork taken;

}  // namespace

bool simulated() { return true; }

void set_bandwidths(double device, double link) {
  emulator::Settings settings = emulator::settings_from_environment();
  settings.device_bandwidth = device;
  settings.link_bandwidth = link;
  emulator::configure(settings);
  taken = {};
}

SimulatedWork take_simulated_work() {
  const SimulatedWork now = all_work(), before = taken;
  taken = now;
  return {now.launches - before.launches,
          now.kernel_bytes - before.kernel_bytes,
          now.to_device_bytes - before.to_device_bytes,
          now.to_host_bytes - before.to_host_bytes,
          now.between_bytes - before.between_bytes,
          now.seconds - before.seconds};
}

}  // namespace rwkv::cuda
