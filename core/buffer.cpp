#include "core/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/checked.h"
#include "core/error.h"

namespace rwkv {

Buffer Buffer::uninitialized(size_t size) {
  const size_t alignment = size < huge_page ? 64 : huge_page;
  if (size > SIZE_MAX - alignment) throw Error("out of memory: an allocation size overflows");
  size_t padded = (size + alignment - 1) / alignment * alignment;
  auto* data = static_cast<std::byte*>(std::aligned_alloc(alignment, padded == 0 ? alignment : padded));
  if (data == nullptr) {
    throw Error(
        fmt::format("out of memory: cannot allocate {} bytes; close other programs, or use a smaller "
                    "model or precision",
                    size));
  }
  if (alignment == huge_page) madvise(data, padded, MADV_HUGEPAGE);  // a wish, which may be refused
  return {data, size, [](std::byte* p) { std::free(p); }};
}

Buffer Buffer::host(size_t size) {
  Buffer buffer = uninitialized(size);
  std::memset(buffer.data(), 0, size);
  return buffer;
}

}  // namespace rwkv
