#include "apps/common/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace rwkv::apps {

void write_quietly(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const std::string& what, uint64_t done, uint64_t total) {
  if (!terminal_) return;
  auto now = Clock::now();
  if (now - start_ < std::chrono::seconds(1) || now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  shown_ = true;
  double percent = total == 0 ? 0 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
  write_quietly(fmt::format("\r{} {:3.0f}% \x1b[K", what, percent));
}

void ProgressLine::clear() {
  if (shown_) write_quietly("\r\x1b[K");
  shown_ = false;
}

std::string human_bytes(uint64_t bytes) {
  constexpr const char* units[] = {"bytes", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(units)) {
    value /= 1000;
    unit++;
  }
  if (unit == 0) return fmt::format("{} {}", bytes, units[0]);
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

std::string counted(int64_t number, const char* what) {
  return fmt::format("{} {}{}", number, what, number == 1 ? "" : "s");
}

}  // namespace rwkv::apps
