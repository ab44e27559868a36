// What every program does the same way: the command line, errors, exit status, signals.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace rwkv::apps {

/// Exit status: 0 done, 1 an error (one line `error: ...`), 2 a wrong command line.
constexpr int exit_error = 1;
constexpr int exit_usage = 2;

struct Program {
  const char* name;         ///< as in --help
  const char* description;  ///< one or two sentences
  const char* examples;     ///< one command per line
};

/// A wrong command line that only the program itself can see; ends it with exit_usage.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Adds the options, parses, runs the action, and turns every failure into one line on standard error and an
/// exit status. `define` adds options to the app. Handlers are installed: a mapped file that was truncated
/// (SIGBUS) ends in an error line, SIGINT, SIGTERM and SIGHUP remove unfinished output files; a write to a
/// closed pipe is an error. A program that was started by its installed name, such as rwkv-chat, calls itself
/// so. Two requests are for the installation and not in --help: `--man PAGE...` prints the manual page, which
/// refers to those pages, `--bash-completion` the script for bash.
int run_program(int argc, char** argv, const Program& program, const std::function<void(CLI::App&)>& define,
                const std::function<void()>& action);

/// Validators for options.
CLI::Validator finite_range(double low, double high);
CLI::Validator not_empty();

}  // namespace rwkv::apps
