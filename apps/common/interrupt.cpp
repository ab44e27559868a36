#include "apps/common/interrupt.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>

#include "core/error.h"
#include "core/output_file.h"

namespace rwkv::apps {
namespace {

// Any thread may run the handlers, so a flag alone could come too late for a reader that is about to sleep.
int wake_descriptor = -1;
std::atomic<bool> raised{false};
std::atomic<bool> second_ends{false};
std::atomic<int64_t> last_milliseconds{-1'000'000};

constexpr int64_t second_within = 500;  // milliseconds

static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

void on_interrupt(int) {
  int saved_errno = errno;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t milliseconds = int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
  if (milliseconds - last_milliseconds.exchange(milliseconds) < second_within && second_ends)
    end_by_interrupt();
  raised = true;
  wake_reader();
  errno = saved_errno;
}

}  // namespace

void catch_interrupts(SecondInterrupt second) {
  second_ends = second == SecondInterrupt::ends;
  if (wake_descriptor < 0) wake_descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_descriptor < 0) throw system_error("Ctrl-C", "set up", errno);
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return raised; }

void clear_interrupt() { raised = false; }

void end_by_interrupt() {
  OutputFile::remove_unfinished();
  std::signal(SIGINT, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  raise(SIGINT);
  _exit(128 + SIGINT);
}

bool wait_for_input(int descriptor) {
  while (true) {
    pollfd waits[2] = {{descriptor, POLLIN, 0}, {wake_descriptor, POLLIN, 0}};
    if (poll(waits, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return true;  // the read will tell
    }
    if (waits[1].revents == 0) return true;
    uint64_t count = 0;
    while (read(wake_descriptor, &count, sizeof(count)) > 0) {
    }
    return false;
  }
}

void wake_reader() {
  const uint64_t one = 1;
  ssize_t ignored = write(wake_descriptor, &one, sizeof(one));
  static_cast<void>(ignored);
}

}  // namespace rwkv::apps
