#include "core/checked.h"

#include <doctest/doctest.h>

#include <vector>

#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

constexpr uint64_t max = UINT64_MAX;

}  // namespace

TEST_CASE("checked: sums up to the largest number, beyond it an Error") {
  CHECK(checked_add(2, 3, "x") == 5);
  CHECK(checked_add(max - 1, 1, "x") == max);
  CHECK(error_of([] { checked_add(max, 1, "file.x"); }) == "file.x: the sum of sizes overflows");
  CHECK_THROWS_AS(checked_add(max, max, "x"), Error);
}

TEST_CASE("checked: products up to the largest number, beyond it an Error") {
  CHECK(checked_mul(6, 7, "x") == 42);
  CHECK(checked_mul(0xffffffff, 0x100000001, "x") == max);
  CHECK(error_of([] { checked_mul(1ull << 32, 1ull << 32, "file.x"); }) ==
        "file.x: the product of sizes overflows");
}

TEST_CASE("checked: a product of sizes fits a signed number or is an Error") {
  auto product = [](std::vector<int64_t> sizes) { return checked_product(sizes, "x"); };
  CHECK(product({}) == 1);
  CHECK(product({2, 3, 4}) == 24);
  CHECK(product({5, 0, 7}) == 0);
  CHECK(product({INT64_MAX}) == static_cast<uint64_t>(INT64_MAX));
  CHECK_THROWS_AS(product({1ll << 32, 1ll << 31}), Error);
  CHECK_THROWS_AS(product({1ll << 62, 4}), Error);
  CHECK(error_of([&] { product({3, -1}); }) == "x: negative size");
}

TEST_CASE("checked: a range fits only when all of it lies inside") {
  CHECK(range_fits(0, 0, 0));
  CHECK(range_fits(0, 8, 8));
  CHECK(range_fits(8, 0, 8));
  CHECK_FALSE(range_fits(1, 8, 8));
  CHECK_FALSE(range_fits(9, 0, 8));
  CHECK_FALSE(range_fits(max - 9, 10, 8));
  CHECK_FALSE(range_fits(4, max, 8));
  CHECK(range_fits(max, 0, max));
}

TEST_CASE("checked: rounding up reaches the next multiple") {
  CHECK(round_up(0, 64) == 0);
  CHECK(round_up(1, 64) == 64);
  CHECK(round_up(64, 64) == 64);
  CHECK(round_up(65, 64) == 128);
}

}  // namespace rwkv::test

TEST_SUITE_END();
