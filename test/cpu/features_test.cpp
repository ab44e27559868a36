#include "cpu/features.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "cpu/cpu.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

TEST_SUITE_BEGIN("cpu");

namespace rwkv::test {
namespace {

/// RWKV_CPU with another value for a while.
class Environment {
 public:
  explicit Environment(const char* value) {
    if (const char* now = std::getenv(name)) before_ = now;
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Environment() { before_ ? setenv(name, before_->c_str(), 1) : unsetenv(name); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  static constexpr const char* name = "RWKV_CPU";
  std::optional<std::string> before_;
};

std::string chosen(const char* wanted) {
  Environment environment(wanted);
  return cpu::choose_kernels().name;
}

const cpu::Kernels* supported(const std::string& name) {
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    if (kernels->name == name) return kernels;
  }
  return nullptr;
}

/// x W^T.
std::vector<float> multiply(const cpu::Kernels& kernels, std::span<const float> x,
                            const PackedMatrix& weight) {
  auto device = cpu::open(1, kernels);
  int64_t inputs = weight.layout.inputs, tokens = static_cast<int64_t>(x.size()) / inputs;
  std::vector<float> zeros(static_cast<size_t>(tokens * weight.layout.outputs));
  DeviceMatrix w(*device, weight);
  DeviceTensor in(*device, {tokens, inputs}, x), out(*device, {tokens, weight.layout.outputs}, zeros);
  Product product{in, w, out};
  device->make_ops()->matmul({&product, 1});
  return out.values();
}

// All have fused multiply-adds and take inputs in ascending order; those with VNNI multiply the same
// integers.
void check_same_bits(const char* first, const char* second) {
  const cpu::Kernels *a = supported(first), *b = supported(second);
  if (a == nullptr || b == nullptr) return;
  Random random(3);
  for (Layout layout : {Layout::cpu_blocks, Layout::cpu_coded, Layout::input_rows}) {
    for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i8, DType::i4}) {
      if (layout == Layout::cpu_coded && dtype != DType::bf16) continue;
      for (int64_t tokens : {1, 2, 3, 12, 25}) {
        for (int64_t inputs : {1, 2, 65, 300}) {
          CAPTURE(name_of(dtype));
          CAPTURE(tokens);
          CAPTURE(inputs);
          PackedMatrix weight({layout, dtype, 80, inputs}, random.normals(80 * inputs));
          std::vector<float> x = random.normals(tokens * inputs);
          for (size_t i = 0; i < x.size(); i += 3) x[i] *= 1e6f;  // sums of different sizes round a lot
          CHECK(same_bits(multiply(*a, x, weight), multiply(*b, x, weight)));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("instruction sets: the best first, scalar last, names differ") {
  std::set<std::string> names;
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) names.insert(kernels->name);
  CHECK(names.size() == cpu::supported_kernels().size());
  CHECK(std::string(cpu::supported_kernels().back()->name) == "scalar");
}

TEST_CASE("instruction sets: RWKV_CPU chooses any that the machine has; without it the best is chosen") {
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) CHECK(chosen(kernels->name) == kernels->name);
  std::string best = cpu::supported_kernels().front()->name;
  CHECK(chosen(nullptr) == best);
  CHECK(chosen("") == best);
}

TEST_CASE("instruction sets: a name that is unknown, or that the machine lacks, is an error with the names") {
  std::string names;
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    names += std::string(names.empty() ? "" : ", ") + kernels->name;
  }
  for (const char* name : {"sse9", "AVX2", " scalar", "scalar,avx2", "amx", "avx512bf16", "avx512vnni",
                           "avx512", "avxvnni", "avx2"}) {
    if (supported(name) != nullptr) continue;
    CHECK(error_of([&] { chosen(name); }) ==
          "RWKV_CPU=" + std::string(name) + ": no instruction set of this name on this machine; it has " +
              names);
  }
  CHECK(error_of([] { chosen("a\nb"); }).find('\n') == std::string::npos);
}

TEST_CASE("instruction sets: with 256 and with 512 bits they give the same bits") {
  check_same_bits("avx2", "avx512");
  check_same_bits("avxvnni", "avx512vnni");
}

}  // namespace rwkv::test

TEST_SUITE_END();
