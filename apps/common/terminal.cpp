#include "apps/common/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace rwkv::apps {
namespace {

// False, with errno, when not everything could be written.
bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    ssize_t count = write(descriptor, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd wait = {descriptor, POLLOUT, 0};
      poll(&wait, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

void write_output(std::string_view text) {
  if (!write_all(STDOUT_FILENO, text)) {
    throw OutputError(system_error("standard output", "write", errno).what());
  }
}

void write_notice(std::string_view text) { static_cast<void>(write_all(STDERR_FILENO, text)); }

bool is_terminal(int descriptor) { return isatty(descriptor) == 1; }

int terminal_columns() {
  winsize size = {};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

bool wants_colour() {
  const char *none = std::getenv("NO_COLOR"), *kind = std::getenv("TERM");
  bool dumb = kind == nullptr || *kind == '\0' || std::string_view(kind) == "dumb";
  return (none == nullptr || *none == '\0') && !dumb;
}

}  // namespace rwkv::apps
