#include "ops/times.h"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "cpu/cpu.h"
#include "test/ops/product_case.h"

TEST_SUITE_BEGIN("ops");

namespace rwkv::test {

TEST_CASE("times: operators that take the same name are added up, and the longest comes first") {
  OperatorTimes times;
  times.add({"a", 1, 1.0, 10});
  times.add({"b", 1, 3.0, 0});
  times.add({"a", 2, 1.5, 20});
  std::vector<OperatorTime> sorted = times.sorted();
  REQUIRE(sorted.size() == 2);
  CHECK(sorted[0].name == "b");
  CHECK(sorted[1].name == "a");
  CHECK(sorted[1].calls == 3);
  CHECK(sorted[1].seconds == 2.5);
  CHECK(sorted[1].weight_bytes == 30);
}

TEST_CASE("times: measured operators give the same results; products are named by their matrices") {
  auto device = cpu::open(2);
  auto ops = device->make_ops();
  ProductCase c({Layout::cpu_blocks, DType::i8, 40, 70}, Epilogue::none, 3, 1),
      rows({Layout::input_rows, DType::f32, 16, 70}, Epilogue::none, 3, 2);
  std::vector<float> expected = run_alone({*device, *ops}, c, {0, 3});
  OnDevice first(*device, c, {0, 3}), second(*device, c, {0, 3}), third(*device, rows, {0, 3});
  const Product products[] = {first.product(), second.product(), third.product()};
  OperatorTimes times;
  ops->measure(&times);
  const auto start = std::chrono::steady_clock::now();
  bool worked = false;
  ops->repeat({}, [&] {
    worked = true;
    ops->matmul(products);
    ops->matmul({products, 1});
  });
  const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ops->measure(nullptr);
  ops->matmul({products, 1});
  CHECK(worked);
  CHECK(same_bits(first.result(), expected));
  CHECK(same_bits(second.result(), expected));
  std::vector<OperatorTime> sorted = times.sorted();
  REQUIRE(sorted.size() == 2);
  double sum = 0;
  for (const OperatorTime& time : sorted) {
    const bool several = time.name == "matmul 2 x 40x70 + 16x70";
    CHECK((several || time.name == "matmul 40x70"));
    CHECK(time.calls == 1);
    const auto bytes = static_cast<uint64_t>(c.layout.bytes());
    CHECK(time.weight_bytes == (several ? 2 * bytes + static_cast<uint64_t>(rows.layout.bytes()) : bytes));
    CHECK(time.seconds > 0);
    sum += time.seconds;
  }
  CHECK(sum <= all);
}

}  // namespace rwkv::test

TEST_SUITE_END();
