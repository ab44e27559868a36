#include "cpu/features.h"

#include <cpuid.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "core/error.h"

namespace rwkv::cpu {
namespace {

struct Candidate {
  const Kernels* kernels;
  bool (*supported)();
};

// clang's __builtin_cpu_supports does not know this one.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

// __builtin_cpu_supports also asks whether the operating system saves the registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
// Neither g++ 12 nor clang 14 has a name for it.
bool has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 1u << 4) != 0;
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_avx512bf16() { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }

// The operating system gives the tiles to processes that ask for them.
bool has_amx() {
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  constexpr unsigned bf16_bit = 1u << 22, tile_bit = 1u << 24;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!has_avx512bf16() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & bf16_bit) == 0 || (edx & tile_bit) == 0) return false;
  static const bool permitted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return permitted;
}

constexpr Candidate candidates[] = {
    {&amx::kernels, has_amx},
    {&avx512bf16::kernels, has_avx512bf16},
    {&avx512vnni::kernels, has_avx512vnni},
    {&avx512::kernels, has_avx512},
    {&avxvnni::kernels, has_avxvnni},
    {&avx2::kernels, has_avx2},
    {&scalar::kernels, [] { return true; }},
};

}  // namespace

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> supported;
  for (const auto& candidate : candidates) {
    if (candidate.supported()) supported.push_back(candidate.kernels);
  }
  return supported;
}

const Kernels& choose_kernels() {
  auto supported = supported_kernels();
  const char* wanted = std::getenv("RWKV_CPU");
  if (wanted == nullptr || *wanted == '\0') return *supported.front();
  std::string names;
  for (const Kernels* kernels : supported) {
    if (std::string_view(kernels->name) == wanted) return *kernels;
    names += names.empty() ? kernels->name : std::string(", ") + kernels->name;
  }
  throw Error(fmt::format("RWKV_CPU={}: no instruction set of this name on this machine; it has {}",
                          printable(wanted), names));
}

}  // namespace rwkv::cpu
