#include "core/error.h"

#include <fmt/format.h>

#include <system_error>

namespace rwkv {

Error system_error(const std::string& path, const std::string& action, int error_number) {
  return Error(fmt::format("{}: cannot {}: {}", path, action,
                           std::error_code(error_number, std::generic_category()).message()));
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  for (size_t i = 0; i < text.size() && i < limit; i++) {
    auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += text[i];
    }
  }
  if (text.size() > limit) out += "...";
  return out;
}

}  // namespace rwkv
