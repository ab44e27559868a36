#include "cpu/cpu.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "cpu/features.h"
#include "test/ops/operator_cases.h"
#include "test/support.h"

TEST_SUITE_BEGIN("cpu");

namespace rwkv::test {
namespace {

constexpr Layout layouts[] = {Layout::cpu_blocks, Layout::input_rows};
constexpr DType types[] = {DType::f32, DType::f16, DType::bf16, DType::i8, DType::i4};

/// One device for each number of threads, more than there are cores among them.
Implementation implementation() {
  std::vector<std::unique_ptr<Device>> devices;
  for (int threads : {1, 2, 3, 5}) devices.push_back(cpu::open(threads));
  std::string set = cpu::choose_kernels().name;
  Rounding rounding = Rounding::cpu;
  if (set == "avxvnni" || set == "avx512vnni") rounding = Rounding::cpu_integers;
  if (set == "avx512bf16" || set == "amx") rounding = Rounding::cpu_bf16;
  return {std::move(devices), {std::begin(layouts), std::end(layouts)}, rounding};
}

}  // namespace

TEST_CASE("the instruction set under test is the one that RWKV_CPU names, or the best") {
  const char* wanted = std::getenv("RWKV_CPU");
  std::string expected =
      wanted != nullptr && *wanted != '\0' ? wanted : cpu::supported_kernels().front()->name;
  CHECK(std::string(cpu::choose_kernels().name) == expected);
  CHECK(cpu::open(1)->description() == "cpu (" + expected + ", 1 thread)");
  CHECK(cpu::open(3)->description() == "cpu (" + expected + ", 3 threads)");
  CHECK(cpu::open(3)->threads() == 3);
  CHECK(cpu::open()->threads() >= 1);
  CHECK(cpu::open(1)->id() == 0);
}

TEST_CASE("device: more threads than there can be are refused") {
  CHECK(error_of([] { cpu::open(2000)->make_ops(); }).find("2000 threads") != std::string::npos);
}

TEST_CASE("device: memory is aligned, zero, and copied in both directions") {
  auto device = cpu::open(1);
  Buffer a = device->allocate(1000), b = device->allocate(1000);
  CHECK(reinterpret_cast<uintptr_t>(a.data()) % 64 == 0);
  std::vector<std::byte> zeros(1000), ones(1000, std::byte{1}), read(1000, std::byte{2});
  device->copy_out(read.data(), a.data(), 1000);
  CHECK(read == zeros);
  device->copy_in(a.data(), ones.data(), 1000);
  device->copy(b.data(), a.data(), 999);
  device->copy_out(read.data(), b.data(), 1000);
  ones.back() = std::byte{0};
  CHECK(read == ones);
}

TEST_CASE("embed") { check_embed(implementation()); }
TEST_CASE("layer_norm") { check_layer_norm(implementation()); }
TEST_CASE("token_shift") { check_token_shift(implementation()); }

TEST_CASE("matmul: all layouts and types") {
  Implementation all = implementation();
  for (Layout layout : layouts) {
    for (DType dtype : types) check_matmul(all, layout, dtype);
  }
  check_matmul(all, Layout::cpu_coded, DType::bf16);
}

TEST_CASE("matmul: all epilogues") {
  Implementation all = implementation();
  for (Layout layout : layouts) {
    for (DType dtype : types) check_epilogues(all, layout, dtype);
  }
  check_epilogues(all, Layout::cpu_coded, DType::bf16);
}

TEST_CASE("matmul: several products in a call give what each gives alone") {
  check_matmul_of_several(implementation());
}
TEST_CASE("matmul: products that share an input give what each gives alone") {
  check_matmul_of_shared_inputs(implementation());
}
TEST_CASE("matmul: exact weights in bf16 give the bits of fp32") { check_exact_matmul(implementation()); }
TEST_CASE("matmul: coded weights give the bits of the same weights as they are") {
  check_coded_matmul(implementation());
}
TEST_CASE("matmul: coded weights that are damaged harm nothing else") {
  check_damaged_coding(implementation());
}
TEST_CASE("matmul: threads do not disturb each other") { check_matmul_repeatedly(implementation()); }
TEST_CASE("matmul: smallest and largest numbers, infinities, NaN") {
  check_matmul_extremes(implementation());
}
TEST_CASE("functions: within their accuracy over all floats") { check_functions(implementation()); }
TEST_CASE("wkv4") { check_wkv4(implementation()); }
TEST_CASE("wkv5: one decay for all tokens") { check_wkv5(implementation()); }
TEST_CASE("wkv5: a decay for each token, as version 6 has") { check_wkv6(implementation()); }
TEST_CASE("wkv7") { check_wkv7(implementation()); }
TEST_CASE("operators allocate nothing once memory is reserved") { check_allocations(implementation()); }

}  // namespace rwkv::test

TEST_SUITE_END();
