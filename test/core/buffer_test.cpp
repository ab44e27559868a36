#include "core/buffer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {

TEST_CASE("buffer: host memory is aligned to 64 bytes, or a huge page, and zero") {
  for (size_t size :
       {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, huge_page - 1, huge_page + 1}) {
    Buffer buffer = Buffer::host(size);
    CHECK(buffer.size() == size);
    CHECK(buffer.bytes().size() == size);
    CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % (size < huge_page ? 64 : huge_page) == 0);
    CHECK(std::ranges::all_of(buffer.bytes(), [](std::byte b) { return b == std::byte{0}; }));
    std::ranges::fill(buffer.bytes(), std::byte{0xff});
  }
}

TEST_CASE("buffer: a default one is empty") {
  Buffer buffer;
  CHECK(buffer.data() == nullptr);
  CHECK(buffer.size() == 0);
}

TEST_CASE("buffer: the deleter runs once, for the last owner") {
  int deleted = 0;
  std::byte memory{};
  {
    Buffer first(&memory, 1, [&](std::byte* p) { deleted += p == &memory ? 1 : 100; });
    Buffer second = std::move(first);
    CHECK(second.data() == &memory);
    CHECK(deleted == 0);
    second = Buffer();
    CHECK(deleted == 1);
  }
  CHECK(deleted == 1);
}

TEST_CASE("buffer: what was moved from is empty") {
  Buffer first = Buffer::host(10);
  Buffer second = std::move(first);
  CHECK(second.size() == 10);
  CHECK(first.data() == nullptr);  // NOLINT(bugprone-use-after-move)
  CHECK(first.size() == 0);        // NOLINT(bugprone-use-after-move)
  CHECK(first.bytes().empty());    // NOLINT(bugprone-use-after-move)
}

TEST_CASE("buffer: a size that no memory can have is an Error, not a crash") {
  CHECK(error_of([] { Buffer::host(SIZE_MAX); }).starts_with("out of memory"));
  CHECK(error_of([] { Buffer::host(SIZE_MAX - 64); }).starts_with("out of memory"));
  CHECK(error_of([] { Buffer::host(size_t{1} << 60); }).starts_with("out of memory"));
}

}  // namespace rwkv::test

TEST_SUITE_END();
