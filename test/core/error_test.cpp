#include "core/error.h"

#include <doctest/doctest.h>

#include <cerrno>

TEST_SUITE_BEGIN("core");

namespace rwkv::test {

TEST_CASE("error: a system error names path, action and reason on one line") {
  CHECK(system_error("a/b.pth", "open the file", ENOENT).what() ==
        std::string("a/b.pth: cannot open the file: No such file or directory"));
}

TEST_CASE("error: names from files are shown without control characters and cut") {
  CHECK(printable("emb.weight") == "emb.weight");
  CHECK(printable(std::string_view("a\0b\n\x1b[31m\x7f", 10)) == "a\\x00b\\x0a\\x1b[31m\\x7f");
  CHECK(printable("\xe4\xb8\xad") == "\xe4\xb8\xad");
  CHECK(printable(std::string(80, 'x')) == std::string(80, 'x'));
  CHECK(printable(std::string(81, 'x')) == std::string(80, 'x') + "...");
  CHECK(printable("abcdef", 3) == "abc...");
}

}  // namespace rwkv::test

TEST_SUITE_END();
