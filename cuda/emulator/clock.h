// The simulated clock. Each piece of work is a step; steps are timed in the order of the calls, so that times
// do not depend on when the emulator happens to run the work.
#pragma once

#include <cstdint>
#include <memory>

struct CUstream_st;

namespace emulator {

/// What an event stands for since it was recorded.
struct Moment {
  bool done = false;
  CUstream_st* stream = nullptr;
  double seconds = 0;
};

enum class Engine : uint8_t { kernels, to_device, from_device };

struct Step {
  enum class Kind : uint8_t {
    work,
    record,
    wait,
    host_waits_for_stream,
    host_waits_for_moment,
    host_waits_for_device
  };
  Kind kind = Kind::work;
  uint64_t stream = 0;
  int device = 0;
  bool ordered = false;  // by the default stream: a blocking stream, or that stream itself
  bool is_default = false;
  Engine engine = Engine::kernels;
  double seconds = 0;
  std::shared_ptr<Moment> moment;
  bool executed = false;
};

namespace simulated {

void reset();
/// Takes its turn behind the steps so far; it is timed when they and it are `executed`.
std::shared_ptr<Step> add(const Step& step);
/// The end of everything that was added. All of it must be executed.
double end();
/// Times what can be timed.
void advance();

}  // namespace simulated
}  // namespace emulator
