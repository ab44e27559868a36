// The one exception type of this project. A message is one line that says what is wrong, where, and what to
// do.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace rwkv {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// `PATH: cannot ACTION: REASON`, where the reason is the system's text for `error_number` (errno).
Error system_error(const std::string& path, const std::string& action, int error_number);

/// The text with every control character replaced by `\xNN`, cut after
/// `limit` bytes: names from untrusted files are shown through it.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace rwkv
