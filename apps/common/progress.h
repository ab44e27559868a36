// Progress of long work: one line on a terminal that is written over, and erased in the end; nothing when
// standard error is no terminal or the work takes less than a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace rwkv::apps {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Shows "what  42%"; done and total in any unit.
  void show(const std::string& what, uint64_t done, uint64_t total);
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  bool shown_ = false;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

/// To standard error; what cannot be written is nobody's loss.
void write_quietly(std::string_view text);

/// "1.25 GB", "820 kB".
std::string human_bytes(uint64_t bytes);
/// "1 token", "2 tokens".
std::string counted(int64_t number, const char* what);

}  // namespace rwkv::apps
