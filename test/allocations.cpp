#include "test/allocations.h"

#include <atomic>
#include <cerrno>
#include <cstddef>

namespace {
std::atomic<uint64_t> count = 0;
}

namespace rwkv::test {
uint64_t allocations() { return count; }
}  // namespace rwkv::test

// NOLINTBEGIN: the names are those of the C library and of the sanitizers
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

// The sanitizers' own malloc calls hooks.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t),
                                                         void (*)(const volatile void*));
[[maybe_unused]] static const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t) { count++; }, [](const volatile void*) {});

#else

// A program may define the allocating functions itself; glibc's go by these names as well.
extern "C" {
void* __libc_malloc(size_t size) noexcept;
void* __libc_calloc(size_t count, size_t size) noexcept;
void* __libc_realloc(void* old, size_t size) noexcept;
void* __libc_memalign(size_t alignment, size_t size) noexcept;

void* malloc(size_t size) noexcept {
  count++;
  return __libc_malloc(size);
}
void* calloc(size_t number, size_t size) noexcept {
  count++;
  return __libc_calloc(number, size);
}
void* realloc(void* old, size_t size) noexcept {
  count++;
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) noexcept {
  count++;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, size_t alignment, size_t size) noexcept {
  count++;
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? ENOMEM : 0;
}
}

#endif
// NOLINTEND
