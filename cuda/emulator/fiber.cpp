#include "cuda/emulator/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

// Of the sanitizers' run-time libraries: null where those are not linked.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* address, size_t size);
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

// Saves what a call preserves, changes stacks, and goes on there. `ret`, not a jump: the processor foresees
// it.
#if defined(__x86_64__)
asm(R"(
.text
.globl emulator_switch_stack
.type emulator_switch_stack, @function
emulator_switch_stack:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
.size emulator_switch_stack, .-emulator_switch_stack
)");
#else
#error "the emulated CUDA device switches stacks on x86-64 only"
#endif

namespace emulator {

namespace {

constexpr size_t page = 4096;

// Carries order from one place to another without the running thread's own: see race_pass.
void* messenger = nullptr;

// Frames are larger under the address sanitizer. Untouched pages cost nothing.
size_t stack_bytes() { return __sanitizer_start_switch_fiber != nullptr ? 512 * 1024 : 128 * 1024; }

void allocate_stack(Fiber& fiber) {
  // Stacks that begin at the same offset in a page would share cache lines' sets.
  static unsigned number = 0;
  const size_t offset = number++ * 576 % page / 64 * 64;
  const size_t bytes = stack_bytes();
  void* memory = mmap(nullptr, bytes + stack_guard, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, stack_guard, PROT_NONE) != 0) abort();
  fiber.stack = static_cast<char*>(memory) + stack_guard;
  fiber.bytes = bytes - offset;
}

// The bounds of this thread's stack, which take a while to find.
Fiber own_stack() {
  Fiber fiber;
  pthread_attr_t attributes;
  void* bottom = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) abort();
  pthread_attr_getstack(&attributes, &bottom, &fiber.bytes);
  pthread_attr_destroy(&attributes);
  fiber.stack = static_cast<char*>(bottom);
  return fiber;
}

}  // namespace

bool detects_races() { return __tsan_create_fiber != nullptr; }

void prepare(Fiber& fiber, void (*entry)()) {
  if (fiber.stack == nullptr) allocate_stack(fiber);
  // A return address that nobody uses keeps the alignment that a called function expects.
  void** top = reinterpret_cast<void**>(fiber.stack + fiber.bytes) - 2;
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  fiber.stack_pointer = top - 6;
  fiber.fake_stack = nullptr;
  if (detects_races() && fiber.race_context == nullptr) fiber.race_context = __tsan_create_fiber(0);
}

void adopt_thread(Fiber& fiber) {
  static thread_local const Fiber self = own_stack();
  fiber = self;
  if (!detects_races()) return;
  fiber.race_context = __tsan_get_current_fiber();
  if (messenger == nullptr) messenger = __tsan_create_fiber(0);
}

const bool switches_are_watched = __sanitizer_start_switch_fiber != nullptr || detects_races();

void begin_switch(Fiber& from, const Fiber& to, bool finished) {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(finished ? nullptr : &from.fake_stack, to.stack, to.bytes);
  }
  if (detects_races()) __tsan_switch_to_fiber(to.race_context, 1);  // 1: no order between the two follows
}

void end_switch(Fiber& arrived) {
  if (__sanitizer_finish_switch_fiber == nullptr) return;
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(arrived.fake_stack, &bottom, &bytes);
}

void begin_fiber() {
  Fiber fresh;
  end_switch(fresh);
}

void abandon(Fiber& fiber) {
  fiber.stack_pointer = nullptr;
  forget_frames(fiber);
  if (fiber.race_context == nullptr) return;
  __tsan_destroy_fiber(fiber.race_context);
  fiber.race_context = nullptr;
}

void forget_frames(const Fiber& fiber) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(fiber.stack, fiber.bytes);
}

void race_release(void* at) {
  if (detects_races()) __tsan_release(at);
}

void race_acquire(void* at) {
  if (detects_races()) __tsan_acquire(at);
}

void race_pass(void* from, void* to) {
  if (!detects_races()) return;
  void* self = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(messenger, 1);
  __tsan_acquire(from);
  __tsan_release(to);
  __tsan_switch_to_fiber(self, 1);
}

}  // namespace emulator
