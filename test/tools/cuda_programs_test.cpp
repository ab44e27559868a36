// Programs of each kind of CUDA, whatever kind those are that the build installs.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <vector>

#include "test/apps/chat.h"
#include "test/apps/process.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

// The logits of two tokens, or the program's error.
Result logits(const std::string& program, const std::string& strategy, const std::string& output) {
  return run_program({program_path("tools/" + program), demo_file(), "--tokens", "-", "--output", output,
                      "--strategy", strategy},
                     "1 2");
}

// No device is there, and one line says what to do.
void check_refused(const std::string& program, const std::string& advice) {
  TemporaryDirectory directory;
  for (const char* strategy : {"cuda fp16", "cpu fp32 *2 -> cuda fp16i8 *1+"}) {
    Result r = logits(program, strategy, directory / "out");
    CAPTURE(r.errors);
    CHECK(r.status == 1);
    CHECK(r.output == "");
    CHECK(r.errors.starts_with("error: "));
    CHECK(std::count(r.errors.begin(), r.errors.end(), '\n') == 1);
    CHECK(r.errors.find(advice) != std::string::npos);
    CHECK(!std::filesystem::exists(directory / "out"));
  }
}

void check_cpu_strategy(const std::string& program) {
  TemporaryDirectory directory;
  CHECK(logits(program, "cpu fp32", directory / "a").status == 0);
  CHECK(logits("rwkv-logits", "cpu fp32", directory / "b").status == 0);
  CHECK(read_file(directory / "a").size() == size_t{2 * 1500 * 4});
  CHECK(read_file(directory / "a") == read_file(directory / "b"));
}

std::vector<float> floats(const std::string& path) {
  std::string bytes = read_file(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace

TEST_CASE("a program without CUDA runs CPU strategies and says what to build for the others") {
  check_cpu_strategy("rwkv-logits-absent");
  check_refused("rwkv-logits-absent", "make CUDA=1");
}

TEST_CASE("a program with the emulated device runs CUDA strategies") {
  check_cpu_strategy("rwkv-logits-emulated");
  TemporaryDirectory directory;
  REQUIRE(logits("rwkv-logits-emulated", "cpu fp32", directory / "cpu").status == 0);
  Result r = logits("rwkv-logits-emulated", "cuda fp32", directory / "cuda");
  CHECK(r.errors == "");
  REQUIRE(r.status == 0);
  std::vector<float> cpu = floats(directory / "cpu"), cuda = floats(directory / "cuda");
  REQUIRE(cpu.size() == cuda.size());
  CHECK(std::equal(cpu.begin(), cpu.end(), cuda.begin(),
                   [](float a, float b) { return std::abs(a - b) <= 1e-3f; }));
}

// There where the toolkit is: `make test` builds it then. Variables keep a GPU out of sight, if there is one.
TEST_CASE("a program for GPUs runs CPU strategies without one, and says what is missing for the others") {
  if (!std::filesystem::exists(program_path("tools/rwkv-logits-real"))) return;
  REQUIRE(setenv("CUDA_VISIBLE_DEVICES", "", 1) == 0);
  check_cpu_strategy("rwkv-logits-real");
  check_refused("rwkv-logits-real", "cannot find a device");
  REQUIRE(unsetenv("CUDA_VISIBLE_DEVICES") == 0);
}

}  // namespace rwkv::test

TEST_SUITE_END();
