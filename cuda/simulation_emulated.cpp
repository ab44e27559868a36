#include "cuda/emulator/control.h"
#include "cuda/simulation.h"

namespace rwkv::cuda {

bool simulated() { return true; }

void set_bandwidths(double device, double link) {
  emulator::Settings settings = emulator::settings_from_environment();
  settings.device_bandwidth = device;
  settings.link_bandwidth = link;
  emulator::configure(settings);
}

SimulatedWork take_simulated_work() {
  const double seconds = emulator::simulated_seconds();
  const emulator::Counters c = emulator::counters();
  emulator::reset_counters();
  return {c.launches, c.kernel_load_bytes, c.host_to_device_bytes, c.device_to_host_bytes, c.peer_bytes,
          seconds};
}

}  // namespace rwkv::cuda
