#include "test/allocations.h"

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<uint64_t> count = 0;
std::atomic<int64_t> live = 0, peak = 0;
std::atomic<bool (*)()> left_out = nullptr;
std::atomic<uint64_t> until_failure = 0, asked = 0;

void count_allocation(size_t bytes) {
  bool (*inside)() = left_out;
  if (inside == nullptr || !inside()) count++;
  int64_t now = live += static_cast<int64_t>(bytes), before = peak;
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

void count_release(size_t bytes) { live -= static_cast<int64_t>(bytes); }

}  // namespace

namespace rwkv::test {
uint64_t allocations() { return count; }
void leave_out_allocations(bool (*inside)()) { left_out = inside; }
int64_t peak_bytes() { return peak; }
void restart_peak() { live = peak = 0; }
int64_t live_bytes() { return live; }
void fail_allocation(uint64_t n) {
  until_failure = 0;
  asked = 0;
  until_failure = n;
}
bool allocation_failed() { return until_failure != 0 && asked >= until_failure; }
}  // namespace rwkv::test

static void* allocate_or_fail(size_t size) noexcept {
  if (until_failure != 0 && ++asked == until_failure) return nullptr;
  return std::malloc(size == 0 ? 1 : size);
}

// A program may define these: all, since the sanitizers have all. Those for aligned memory stay theirs.
void* operator new(size_t size) {
  void* memory = allocate_or_fail(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new[](size_t size) { return operator new(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return allocate_or_fail(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return allocate_or_fail(size); }
void operator delete(void* old) noexcept { std::free(old); }
void operator delete[](void* old) noexcept { std::free(old); }
void operator delete(void* old, size_t) noexcept { std::free(old); }
void operator delete[](void* old, size_t) noexcept { std::free(old); }
void operator delete(void* old, const std::nothrow_t&) noexcept { std::free(old); }
void operator delete[](void* old, const std::nothrow_t&) noexcept { std::free(old); }

// NOLINTBEGIN: the names are those of the C library and of the sanitizers
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

// The sanitizers' own malloc calls hooks.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t),
                                                         void (*)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void*);
[[maybe_unused]] static const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t size) { count_allocation(size); },
    [](const volatile void* old) {
      if (old != nullptr) count_release(__sanitizer_get_allocated_size(old));
    });

#else

// A program may define the allocating functions itself; glibc's go by these names as well.
static void* counted(void* memory) {
  if (memory != nullptr) count_allocation(malloc_usable_size(memory));
  return memory;
}

extern "C" {
void* __libc_malloc(size_t size) noexcept;
void* __libc_calloc(size_t count, size_t size) noexcept;
void* __libc_realloc(void* old, size_t size) noexcept;
void* __libc_memalign(size_t alignment, size_t size) noexcept;
void __libc_free(void* old) noexcept;

void* malloc(size_t size) noexcept { return counted(__libc_malloc(size)); }
void* calloc(size_t number, size_t size) noexcept { return counted(__libc_calloc(number, size)); }
void* realloc(void* old, size_t size) noexcept {
  size_t before = old == nullptr ? 0 : malloc_usable_size(old);
  void* moved = counted(__libc_realloc(old, size));
  if (moved != nullptr || size == 0) count_release(before);
  return moved;
}
void* memalign(size_t alignment, size_t size) noexcept { return counted(__libc_memalign(alignment, size)); }
void* aligned_alloc(size_t alignment, size_t size) noexcept {
  return counted(__libc_memalign(alignment, size));
}
int posix_memalign(void** result, size_t alignment, size_t size) noexcept {
  *result = counted(__libc_memalign(alignment, size));
  return *result == nullptr ? ENOMEM : 0;
}
void free(void* old) noexcept {
  if (old != nullptr) count_release(malloc_usable_size(old));
  __libc_free(old);
}
}

#endif
// NOLINTEND
