#include "apps/common/limits.h"

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "core/buffer.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::apps {
namespace {

/// Whether the system gives huge pages to memory that asks for them.
bool gives_huge_pages() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string modes;
  return std::getline(in, modes) && modes.find("[never]") == std::string::npos;
}

TEST_CASE("limits: memory that a buffer takes is counted, and which of it lies in huge pages") {
  constexpr size_t size = 32 * huge_page;
  const MemoryUse before = measure_memory();
  const Buffer buffer = Buffer::host(size);
  const MemoryUse after = measure_memory();
  CHECK(after.without_files - before.without_files > 0.9 * size);
  CHECK(after.without_files - before.without_files < 1.1 * size);
  CHECK((after.huge_pages > before.huge_pages) == gives_huge_pages());
  CHECK(after.huge_pages - before.huge_pages <= size);
  CHECK(after.peak >= after.without_files);
}

}  // namespace
}  // namespace rwkv::apps

TEST_SUITE_END();
