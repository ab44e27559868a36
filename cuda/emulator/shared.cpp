// Shared memory of the running block: filled with 0xFF at its start, with gaps between the arrays whose bytes
// must stay, and the end of the dynamic part at the end of a page.
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "cuda/emulator/block.h"

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {
__attribute__((weak)) void __asan_poison_memory_region(const volatile void* address, size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace emulator {

namespace {

constexpr size_t page = 4096, gap = 64, area_bytes = 512 * 1024;
constexpr size_t static_area = 2 * max_static_shared;
constexpr int max_arrays = 128;
constexpr unsigned char gap_byte = 0xa5;

struct Array {
  const void* site;
  size_t offset, bytes;
};

Array arrays[max_arrays];
int array_count = 0;
size_t static_used = 0, static_end = 0, dynamic_bytes = 0, total_limit = 0;
char* area = nullptr;  // static arrays from its beginning, dynamic memory to its end
// Under the thread sanitizer each block has its own, so that blocks do not seem to share it.
struct Spent {
  Spent* next;
};
Spent* spent = nullptr;

char* new_area() {
  const size_t bytes = area_bytes + 2 * page;
  void* memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  char* begin = static_cast<char*>(memory) + page;
  if (mprotect(begin, area_bytes, PROT_READ | PROT_WRITE) != 0) abort();
  return begin;
}

char* dynamic_begin() { return area + area_bytes - (dynamic_bytes + 15) / 16 * 16; }

// Not memset: the thread sanitizer would take it for the kernel's write.
void fill(char* begin, unsigned char byte, size_t bytes) {  // NOLINT(readability-non-const-parameter)
  asm volatile("rep stosb" : "+D"(begin), "+c"(bytes) : "a"(byte) : "memory");
}

void set_gap(char* begin, size_t bytes) {
  fill(begin, gap_byte, bytes);
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(begin, bytes);
}

}  // namespace

void begin_shared(size_t bytes, size_t limit) {
  total_limit = limit;
  if (area == nullptr || detects_races()) area = new_area();
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(area, area_bytes);
  array_count = 0;
  static_used = 0;
  static_end = gap;
  set_gap(area, gap);
  dynamic_bytes = bytes;
  if (bytes > 0) fill(dynamic_begin(), 0xff, (bytes + 15) / 16 * 16);
  set_gap(dynamic_begin() - gap, gap);
  if (detects_races()) {
    // Linked through the unused middle, where the marks are too.
    auto* link = reinterpret_cast<Spent*>(area + static_area);
    link->next = spent;
    spent = link;
  }
}

const char* check_shared() {
  if (__asan_poison_memory_region != nullptr) return nullptr;  // seen already, by line
  const auto intact = [](const char* begin) {
    for (size_t i = 0; i < gap; i++) {
      if (static_cast<unsigned char>(begin[i]) != gap_byte) return false;
    }
    return true;
  };
  bool whole = intact(area) && intact(dynamic_begin() - gap);
  for (int i = 0; i < array_count; i++) whole = whole && intact(area + arrays[i].offset + arrays[i].bytes);
  return whole ? nullptr : "a write outside the shared arrays";
}

void end_shared() {
  if (!detects_races()) return;
  while (spent != nullptr) {
    Spent* next = spent->next;
    munmap(reinterpret_cast<char*>(spent) - static_area - page, area_bytes + 2 * page);
    spent = next;
  }
  area = nullptr;
}

bool in_shared(const void* address) {
  return static_cast<const char*>(address) >= area && static_cast<const char*>(address) < area + area_bytes;
}

void* block_mark(size_t number) { return area + static_area + sizeof(Spent) + number * 8; }

void* shared_array(const void* site, size_t bytes, size_t alignment) {
  for (int i = 0; i < array_count; i++) {
    if (arrays[i].site == site) return area + arrays[i].offset;
  }
  const size_t offset = (static_end + alignment - 1) / alignment * alignment;
  static_used += bytes;
  if (static_used > max_static_shared || array_count == max_arrays || offset + bytes + gap > static_area) {
    stop_kernel(cudaErrorLaunchOutOfResources, "more than %zu bytes of static shared memory",
                max_static_shared);
  }
  if (static_used + dynamic_bytes > total_limit) {
    stop_kernel(cudaErrorLaunchOutOfResources,
                "%zu bytes of static and %zu of dynamic shared memory: more than %zu", static_used,
                dynamic_bytes, total_limit);
  }
  arrays[array_count++] = {site, offset, bytes};
  fill(area + offset, 0xff, bytes);
  set_gap(area + offset + bytes, gap);
  static_end = offset + bytes + gap;
  return area + offset;
}

void* dynamic_shared_memory() { return dynamic_begin(); }

}  // namespace emulator
