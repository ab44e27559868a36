// Device and pinned memory: each space is a range of addresses of its own. An allocation ends at the end of a
// page (device memory up to the 256 bytes of its alignment), with pages around it that nobody may touch.
// Addresses are not used again, so whoever touches freed memory is found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator::memory {

constexpr int pinned = -1;  // the space of pinned memory; devices have theirs by number
constexpr int max_devices = 8;

struct Allocation {
  char* begin;
  size_t bytes;
  int space;
  uint64_t number;  // in order of allocation, from 1
  bool live;
};

/// Releases everything; each device has this many bytes from now on.
void reset(size_t bytes);
/// Filled with 0xFF; null when there is not enough.
void* allocate(int space, size_t bytes);
/// Whether there was a live allocation of that kind at the address.
bool release(void* address, bool device_memory);
/// The allocation that holds the address, live or not, or null.
const Allocation* find(const void* address);
/// "device" memory of that space, 'live' and with all these bytes.
bool holds(int space, const void* address, size_t bytes);
/// Whether the address lies in a space of the emulator at all.
bool owns(const void* address);

bool register_pages(void* address, size_t bytes, bool read_only);
bool unregister_pages(void* address);
/// Pinned by allocation or by registration.
bool is_pinned(const void* address, size_t bytes);
/// Whether some of the bytes are registered, and some are not or belong to another registration.
bool is_partly_registered(const void* address, size_t bytes);
/// Whether the byte is registered for reading only.
bool is_read_only(const void* address);
/// Whether the process may write to all of the bytes.
bool is_writable(const void* address, size_t bytes);

size_t used(int device);
size_t peak();
void reset_peak();
int live_count(bool device_memory);
int registered_count();

/// Makes the memory of these devices (bit by bit) accessible, and no other's.
void open(unsigned devices);
void close();

/// What lies at an address that code should not have touched.
std::string describe(const void* address);
/// An allocation behind whose end somebody wrote, in words, or "".
std::string damage();

}  // namespace emulator::memory
