#include "cuda/emulator/symbol.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

namespace emulator {

namespace {

// The program's own symbol table, static functions too, which dladdr would not find.
class SymbolTable {
 public:
  SymbolTable() {
    std::ifstream in("/proc/self/exe", std::ios::binary);
    file_.assign(std::istreambuf_iterator<char>(in), {});
    if (file_.size() < sizeof(Elf64_Ehdr) || memcmp(file_.data(), ELFMAG, SELFMAG) != 0) return;
    const auto header = at<Elf64_Ehdr>(0);
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* base) {
          *static_cast<uintptr_t*>(base) = info->dlpi_addr;
          return 1;  // the first is the program
        },
        &base_);
    for (unsigned i = 0; i < header.e_shnum; i++) {
      const auto section = at<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr));
      if (section.sh_type != SHT_SYMTAB) continue;
      const auto names = at<Elf64_Shdr>(header.e_shoff + section.sh_link * sizeof(Elf64_Shdr));
      for (size_t n = 0; n < section.sh_size / sizeof(Elf64_Sym); n++) {
        const auto symbol = at<Elf64_Sym>(section.sh_offset + n * sizeof(Elf64_Sym));
        if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx != SHN_UNDEF) {
          names_[symbol.st_value] = names.sh_offset + symbol.st_name;
        }
      }
    }
  }

  [[nodiscard]] std::string name(uintptr_t address) const {
    const auto found = names_.find(address - base_);
    if (found == names_.end()) return "(unnamed)";
    const char* mangled = file_.data() + found->second;
    int status = 0;
    char* readable = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
    std::string result = status == 0 ? readable : mangled;
    free(readable);  // NOLINT: what __cxa_demangle wants
    return result;
  }

 private:
  template <class T>
  [[nodiscard]] T at(size_t offset) const {
    T value{};
    if (offset <= file_.size() && sizeof(T) <= file_.size() - offset)
      memcpy(&value, file_.data() + offset, sizeof(T));
    return value;
  }

  std::vector<char> file_;
  std::map<uintptr_t, size_t> names_;
  uintptr_t base_ = 0;
};

// The name without template results and parameters: "void rwkv::scale<float>(float*, int)" is
// rwkv::scale<float>.
std::string shorten(const std::string& name) {
  std::string result;
  int depth = 0;
  for (size_t i = 0; i < name.size(); i++) {
    if (name.compare(i, 21, "(anonymous namespace)") == 0) {
      i += 22;  // and the colons
      continue;
    }
    const char c = name[i];
    if (c == '<') depth++;
    if (c == '>') depth--;
    if (depth == 0 && c == '(') break;
    if (depth == 0 && c == ' ') {
      result.clear();
      continue;
    }
    result += c;
  }
  return result;
}

}  // namespace

std::string symbol_name(const void* function) {
  static const SymbolTable table;
  static std::map<const void*, std::string> known;
  auto& name = known[function];
  if (name.empty()) name = shorten(table.name(reinterpret_cast<uintptr_t>(function)));
  return name;
}

}  // namespace emulator
