// Programs under test: on files and pipes, or on a terminal of their own.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#ifndef RWKV_PROGRAMS
#define RWKV_PROGRAMS "build"
#endif

namespace rwkv::test {

using Arguments = std::vector<std::string>;
/// Variables to set, or to remove where the value is empty.
using Environment = std::vector<std::pair<std::string, std::string>>;

/// The path of a built program, such as "apps/chat".
inline std::string program_path(const std::string& name) { return std::string(RWKV_PROGRAMS) + "/" + name; }

/// A terminated program: the exit status, or 128 and the number of the signal.
struct Result {
  int status = 0;
  std::string output, errors;
};

/// Whether it ended with this status and one line that begins as every error does.
inline bool is_error(const Result& r, int status) {
  bool one_line = r.errors.find('\n') + 1 == r.errors.size() && r.errors.ends_with('\n');
  return r.status == status && one_line && r.errors.starts_with("error: ");
}

/// Runs a program to its end. `redirections` are words of the shell, such as ">&-", put behind it.
Result run_program(const Arguments& command, const std::string& input = "",
                   const std::string& redirections = "");

/// A program that is talked to while it runs. What it fails to do within minutes is an Error.
class Process {
 public:
  enum class Kind {
    pipes,     ///< standard input and output are pipes, errors go to the tests' own
    terminal,  ///< a terminal of 80 columns, in a session of its own
  };

  Process(Kind kind, const Arguments& command, const Environment& environment = {});
  /// Kills the program if it still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void write(const std::string& text) const;
  /// The end of a pipe; a terminal has control characters for that.
  void close_input();
  /// As when nobody reads on.
  void close_output();
  /// Reads on until `text` has come, and returns everything up to its end. Throws Error, which shows what
  /// came instead, at the end of the output and after minutes.
  std::string read_until(const std::string& text);
  /// Everything up to the end of the output.
  std::string read_rest();
  /// Waits until the program has taken all that was written to the pipe.
  void wait_until_read() const;
  void signal(int number) const;
  [[nodiscard]] bool running() const;
  /// Waits for the end: the exit status, or 128 and the number of the signal.
  int wait();

  [[nodiscard]] pid_t id() const { return id_; }
  /// The terminal's other end.
  [[nodiscard]] int terminal() const { return output_; }

 private:
  bool read_more();

  pid_t id_ = -1;
  int input_ = -1, output_ = -1;
  std::string unread_;
};

}  // namespace rwkv::test
