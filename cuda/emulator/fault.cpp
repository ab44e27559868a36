#include "cuda/emulator/fault.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "cuda/emulator/block.h"
#include "cuda/emulator/memory.h"

namespace emulator {

namespace {

struct Access {
  const void* address;
  bool write;
};
Access fault;
bool landing = false;  // a second fault meanwhile would be the emulator's own
struct sigaction previous_segv, previous_bus;

// Where a thread of a kernel goes on after a fault: at the top of its stack, as its frames are given up.
__attribute__((no_sanitize("address"))) void land() {
  forget_frames(running_fiber());
  const char* begin = running_fiber().stack;
  const bool overflow = fault.address < begin && fault.address >= begin - stack_guard;
  if (overflow) stop_kernel(cudaErrorLaunchFailure, "the thread's stack is full");
  // The text lives on until the launch has ended, as nothing on this stack is destroyed.
  static std::string what;
  what = memory::describe(fault.address);
  stop_kernel(cudaErrorIllegalAddress, "a %s at %p: %s", fault.write ? "write" : "read", fault.address,
              what.c_str());
}

// A kernel's fault stands for the whole thread, so the handler may use what a signal handler otherwise may
// not.
void handle(int signal_number, siginfo_t* info, void* context) {
  if (kernel_running() && !landing) {
    landing = true;
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    fault = {info->si_addr, (registers[REG_ERR] & 2) != 0};
    const Fiber& fiber = running_fiber();
    const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.stack) + fiber.bytes - 256) / 16 * 16;
    registers[REG_RSP] = static_cast<greg_t>(top - 8);  // as after a call
    registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(&land));
    return;
  }
  if (memory::owns(info->si_addr)) {
    const std::string line =
        "emulated CUDA device: host code touched " + memory::describe(info->si_addr) + "\n";
    if (write(STDERR_FILENO, line.data(), line.size()) < 0) abort();
  }
  sigaction(signal_number, signal_number == SIGSEGV ? &previous_segv : &previous_bus, nullptr);
}

void catch_one(int signal_number, struct sigaction& previous) {
  struct sigaction now = {};
  sigaction(signal_number, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == &handle) return;
  previous = now;
  struct sigaction own = {};
  own.sa_sigaction = &handle;
  own.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(signal_number, &own, nullptr);
}

// A full stack can only be handled on another one.
void have_signal_stack() {
  stack_t now = {};
  sigaltstack(nullptr, &now);
  if ((now.ss_flags & SS_DISABLE) == 0) return;
  constexpr size_t bytes = 128 * 1024;
  static thread_local void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const stack_t own = {memory, 0, bytes};
  sigaltstack(&own, nullptr);
}

}  // namespace

void catch_faults() {
  landing = false;
  have_signal_stack();
  catch_one(SIGSEGV, previous_segv);
  catch_one(SIGBUS, previous_bus);
}

}  // namespace emulator
