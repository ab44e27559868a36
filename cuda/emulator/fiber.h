// Stacks to switch between. Address and thread sanitizers, where they are linked, are told of each switch.
#pragma once

#include <cstddef>

namespace emulator {

/// Bytes below a stack that fault, so that a large frame does not step over them.
constexpr size_t stack_guard = 64 * 1024;

struct Fiber {
  void* stack_pointer = nullptr;  // null: it must be prepared
  char* stack = nullptr;          // lowest address; stack_guard bytes below it fault
  size_t bytes = 0;
  void* fake_stack = nullptr;    // the address sanitizer's
  void* race_context = nullptr;  // the thread sanitizer's
};

/// Whether the thread sanitizer is there.
bool detects_races();

/// Gives the fiber a stack if it has none. A switch to it then begins `entry`, which must never return.
/// What ran on it before is forgotten.
void prepare(Fiber& fiber, void (*entry)());
/// The fiber that this thread is running on by itself, to switch back to.
void adopt_thread(Fiber& fiber);
extern "C" void emulator_switch_stack(void** save, void* to);
/// Whether a sanitizer wants to know of switches.
extern const bool switches_are_watched;
void begin_switch(Fiber& from, const Fiber& to, bool finished);
void end_switch(Fiber& arrived);
/// `finished`: nobody will switch back to `from`.
inline void switch_fiber(Fiber& from, Fiber& to, bool finished) {
  if (switches_are_watched) begin_switch(from, to, finished);
  emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
  if (switches_are_watched) end_switch(from);
}
/// First thing that an entry function calls.
void begin_fiber();
/// For a fiber that was left in the middle of its work.
void abandon(Fiber& fiber);
/// Forgets the frames on the fiber's stack, the caller's too.
void forget_frames(const Fiber& fiber);

/// Tells the thread sanitizer that what happened before `release` happened before what follows `acquire`.
void race_release(void* at);
void race_acquire(void* at);
/// What was released at `from` is released at `to` too; of the running thread nothing else.
void race_pass(void* from, void* to);

}  // namespace emulator
