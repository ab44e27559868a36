#include "cuda/emulator/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {
__attribute__((weak)) void __asan_poison_memory_region(const volatile void* address, size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace emulator::memory {

namespace {

constexpr size_t page = 4096, alignment = 256, granule = 512;
constexpr size_t space_bytes = size_t{1} << 36;

struct Space {
  char* begin = nullptr;
  size_t next = 0;  // where the next allocation's pages begin
  size_t used = 0;  // as a device counts
  bool open = false;
  std::map<char*, Allocation*> live;  // by the beginning of their pages
};

std::array<Space, max_devices + 1> spaces;  // the last is pinned memory
std::map<const char*, Allocation> allocations;
struct Registration {
  size_t bytes;
  bool read_only;
};
std::map<const char*, Registration> registrations;
size_t capacity = 0, peak_bytes = 0;
uint64_t last_number = 0;

Space& space_of(int space) { return spaces[static_cast<size_t>(space == pinned ? max_devices : space)]; }

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// A registration that has one of these bytes, or null.
const std::pair<const char* const, Registration>* overlapping(const void* address, size_t bytes) {
  const char* begin = static_cast<const char*>(address);
  const auto found = std::find_if(registrations.begin(), registrations.end(), [&](const auto& known) {
    return begin < known.first + known.second.bytes && known.first < begin + bytes;
  });
  return found == registrations.end() ? nullptr : &*found;
}

size_t padded(const Allocation& a) {
  return a.space == pinned ? round_up(a.bytes, 16) : round_up(a.bytes, alignment);
}

// Pages of an empty file: they fault even when their protection would allow an access, so that one call can
// open a whole space and leave the gaps closed. Their place in the file is their address: so gaps that touch
// are one mapping for the system, which slows down with the number of them and has a limit.
void map_gap(char* begin, size_t bytes) {
  static const int file = memfd_create("emulated device", MFD_CLOEXEC);
  if (mmap(begin, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file,
           reinterpret_cast<off_t>(begin)) == MAP_FAILED) {
    throw std::runtime_error("the emulated device cannot map its memory");
  }
}

void map_pages(char* begin, size_t bytes) {
  if (mmap(begin, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
           0) == MAP_FAILED) {
    throw std::runtime_error("the emulated device cannot map its memory");
  }
}

void begin_space(Space& space) {
  void* memory = mmap(nullptr, space_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the emulated device cannot reserve addresses");
  space.begin = static_cast<char*>(memory);
  map_gap(space.begin, page);
  space.next = page;
}

// Allocations that are close to each other in one call; what lies between them stays closed by itself.
void protect(Space& space, bool open) {
  if (space.open == open) return;
  constexpr ptrdiff_t close = 1 << 20;
  for (auto next = space.live.begin(); next != space.live.end();) {
    char *begin = next->first, *end = begin;
    for (; next != space.live.end() && next->first - end < close; ++next) {
      end = next->first + round_up(padded(*next->second), page);
    }
    if (mprotect(begin, static_cast<size_t>(end - begin), open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
      throw std::runtime_error("the emulated device cannot protect its memory");
    }
  }
  space.open = open;
}

}  // namespace

void reset(size_t bytes) {
  for (Space& space : spaces) {
    if (space.begin != nullptr) munmap(space.begin, space_bytes);
    if (space.begin != nullptr && __asan_unpoison_memory_region != nullptr) {
      __asan_unpoison_memory_region(space.begin, space.next);
    }
    space = {};
  }
  allocations.clear();
  registrations.clear();
  capacity = bytes;
  peak_bytes = last_number = 0;
}

void* allocate(int space_number, size_t bytes) {
  Space& space = space_of(space_number);
  const size_t counted = round_up(bytes, granule);
  if (bytes > capacity || (space_number != pinned && space.used + counted > capacity)) return nullptr;
  if (space.begin == nullptr) begin_space(space);
  Allocation a{nullptr, bytes, space_number, last_number + 1, true};
  const size_t pages = round_up(padded(a), page);
  if (space.next + pages + page > space_bytes) return nullptr;
  char* begin = space.begin + space.next;
  map_pages(begin, pages);
  map_gap(begin + pages, page);
  a.begin = begin + pages - padded(a);
  memset(begin, 0xff, pages);
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(begin, static_cast<size_t>(a.begin - begin));
    __asan_poison_memory_region(a.begin + bytes, padded(a) - bytes);
  }
  if (space_number != pinned && !space.open) mprotect(begin, pages, PROT_NONE);
  space.next += pages + page;
  space.used += counted;
  last_number++;
  if (space_number != pinned) peak_bytes = std::max(peak_bytes, space.used);
  space.live[begin] = &(allocations[a.begin] = a);
  return a.begin;
}

bool release(void* address, bool device_memory) {
  const auto found = allocations.find(static_cast<const char*>(address));
  if (found == allocations.end() || !found->second.live || (found->second.space != pinned) != device_memory) {
    return false;
  }
  Allocation& a = found->second;
  a.live = false;
  char* end = a.begin + padded(a);
  const size_t pages = round_up(padded(a), page);
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(end - pages, pages);
  map_gap(end - pages, pages);
  space_of(a.space).used -= round_up(a.bytes, granule);
  space_of(a.space).live.erase(end - pages);
  return true;
}

const Allocation* find(const void* address) {
  auto after = allocations.upper_bound(static_cast<const char*>(address));
  if (after == allocations.begin()) return nullptr;
  const Allocation& a = (--after)->second;
  return static_cast<const char*>(address) < a.begin + std::max<size_t>(a.bytes, 1) ? &a : nullptr;
}

bool holds(int space, const void* address, size_t bytes) {
  const Allocation* a = find(address);
  return a != nullptr && a->live && a->space == space &&
         bytes <= a->bytes - static_cast<size_t>(static_cast<const char*>(address) - a->begin);
}

bool owns(const void* address) {
  return std::any_of(spaces.begin(), spaces.end(), [address](const Space& space) {
    const char* p = static_cast<const char*>(address);
    return space.begin != nullptr && p >= space.begin && p < space.begin + space_bytes;
  });
}

bool register_pages(void* address, size_t bytes, bool read_only) {
  if (overlapping(address, bytes) != nullptr) return false;
  registrations[static_cast<const char*>(address)] = {bytes, read_only};
  return true;
}

bool unregister_pages(void* address) { return registrations.erase(static_cast<const char*>(address)) != 0; }

bool is_pinned(const void* address, size_t bytes) {
  if (holds(pinned, address, bytes)) return true;
  const auto* found = overlapping(address, std::max<size_t>(bytes, 1));
  if (found == nullptr) return false;
  const char* begin = static_cast<const char*>(address);
  return begin >= found->first && bytes <= found->second.bytes - static_cast<size_t>(begin - found->first);
}

bool is_partly_registered(const void* address, size_t bytes) {
  return overlapping(address, bytes) != nullptr && !is_pinned(address, bytes);
}

bool is_read_only(const void* address) {
  const auto* found = overlapping(address, 1);
  return found != nullptr && found->second.read_only;
}

bool is_writable(const void* address, size_t bytes) {
  auto begin = reinterpret_cast<uintptr_t>(address);
  const uintptr_t end = begin + bytes;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; begin < end && std::getline(maps, line);) {
    uintptr_t first = 0, last = 0;
    char read = 0, write = 0;
    if (sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %c%c", &first, &last, &read, &write) != 4) continue;
    if (begin >= last) continue;
    if (begin < first || write != 'w') return false;
    begin = last;
  }
  return begin >= end;
}

size_t used(int device) { return space_of(device).used; }
size_t peak() { return peak_bytes; }

void reset_peak() {
  peak_bytes = 0;
  for (int i = 0; i < max_devices; i++) peak_bytes = std::max(peak_bytes, used(i));
}

int live_count(bool device_memory) {
  return static_cast<int>(
      std::count_if(allocations.begin(), allocations.end(), [device_memory](const auto& entry) {
        return entry.second.live && (entry.second.space != pinned) == device_memory;
      }));
}

int registered_count() { return static_cast<int>(registrations.size()); }

void open(unsigned devices) {
  for (unsigned i = 0; i < max_devices; i++) {
    if ((devices >> i & 1) == 0) protect(spaces[i], false);
  }
  for (unsigned i = 0; i < max_devices; i++) {
    if ((devices >> i & 1) != 0) protect(spaces[i], true);
  }
}

void close() { open(0); }

std::string describe(const void* address) {
  const char* p = static_cast<const char*>(address);
  if (!owns(address))
    return reinterpret_cast<uintptr_t>(address) < page ? "a null pointer" : "no memory of a device";
  auto after = allocations.upper_bound(p);
  if (after == allocations.begin()) return "memory that was never allocated";
  const Allocation& a = (--after)->second;
  const std::string what = "allocation " + std::to_string(a.number) + " of " + std::to_string(a.bytes) +
                           " bytes " +
                           (a.space == pinned ? "of pinned memory" : "on device " + std::to_string(a.space));
  const auto offset = static_cast<size_t>(p - a.begin);
  if (offset >= a.bytes) return std::to_string(offset - a.bytes) + " bytes behind the end of " + what;
  return std::string(a.live ? "" : "freed memory, ") + "byte " + std::to_string(offset) + " of " + what;
}

std::string damage() {
  if (__asan_poison_memory_region != nullptr) return "";  // seen already, by line
  for (const Space& space : spaces) {
    if (!space.open) continue;
    for (const auto& [pages, a] : space.live) {
      for (size_t i = a->bytes; i < padded(*a); i++) {
        if (static_cast<unsigned char>(a->begin[i]) != 0xff) return "a write to " + describe(a->begin + i);
      }
    }
  }
  return "";
}

}  // namespace emulator::memory
