#include "apps/common/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>
#include <optional>
#include <sstream>
#include <vector>

#include "apps/common/manual.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/version.h"

namespace rwkv::apps {
namespace {

void write_text(const char* text) {
  ssize_t ignored = write(STDERR_FILENO, text, std::strlen(text));
  static_cast<void>(ignored);
}

// A page of a mapped file that is no longer there.
void on_bus_error(int, siginfo_t* info, void*) {
  OutputFile::remove_unfinished();
  const char* path = MappedFile::path_at(info->si_addr);
  write_text("error: ");
  write_text(path == nullptr ? "memory" : path);
  write_text(
      ": was truncated or replaced while in use, or cannot be read; start again with the whole file\n");
  _exit(exit_error);
}

// Ends as the signal would have, but leaves no unfinished files.
void on_termination(int signal) {
  OutputFile::remove_unfinished();
  std::signal(signal, SIG_DFL);
  raise(signal);
}

void install_handlers() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
  struct sigaction ending = {};
  ending.sa_handler = on_termination;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction inherited = {};
    sigaction(signal, nullptr, &inherited);
    if (inherited.sa_handler != SIG_IGN) sigaction(signal, &ending, nullptr);  // nohup
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit: the write fails instead
}

// A file that is opened later must not pass for a standard stream that was closed.
void reserve_standard_streams() {
  for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) != -1) continue;
    // The lowest free number is this one. Reading finds the end; writing to standard output fails, as it
    // should.
    static_cast<void>(open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY));
  }
}

int fail(int status, std::string_view message) {
  std::fflush(stdout);  // what was printed before stands before, also in a file that takes both
  write_text(fmt::format("error: {}\n", printable(message, 4000)).c_str());
  return status;
}

// --help and --version.
int print_and_exit(const CLI::App& app, const CLI::ParseError& request) {
  int status = app.exit(request);
  std::cout.flush();
  return std::cout ? status : fail(exit_error, "standard output: cannot be written");
}

int fail_usage(const std::string& message, const std::string& name) {
  return fail(exit_usage, fmt::format("{}; see {} --help", message, name));
}

int run_action(const std::string& name, const std::function<void()>& action) {
  try {
    action();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      throw system_error("standard output", "write", errno == 0 ? EIO : errno);
    }
    return 0;
  } catch (const UsageError& e) {
    return fail_usage(e.what(), name);
  } catch (const std::bad_alloc&) {
    return fail(exit_error, "out of memory: close other programs, or use a smaller model or precision");
  } catch (const std::exception& e) {
    return fail(exit_error, e.what());
  }
}

// As `make install` names it.
std::string installed_name(const Program& program) {
  std::string name = program.name;
  return name.starts_with("rwkv-") ? name : "rwkv-" + name;
}

bool has_installed_name(const Program& program, std::string_view path) {
  return path.substr(path.rfind('/') + 1) == installed_name(program);
}

// The examples, with `name` where the program's own name first stands as a word of a line.
std::string examples_for(const Program& program, const std::string& name) {
  std::string text, line;
  for (std::istringstream lines(program.examples); std::getline(lines, line);) {
    const size_t at = fmt::format(" {} ", line).find(fmt::format(" {} ", program.name));
    if (at != std::string::npos) line.replace(at, std::strlen(program.name), name);
    text += (text.empty() ? "" : "\n") + line;
  }
  return text;
}

// What the command line alone asks for: the exit status after --help, --version or a mistake.
std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return print_and_exit(app, e);
    std::string message = e.what();
    if (size_t end = message.find('\n'); end != std::string::npos) message.resize(end);
    return fail_usage(message, app.get_name());
  }
}

}  // namespace

int run_program(int argc, char** argv, const Program& program, const std::function<void(CLI::App&)>& define,
                const std::function<void()>& action) {
  reserve_standard_streams();
  install_handlers();
  const std::vector<std::string> words(argv, argv + argc);
  const bool manual = argc > 1 && words[1] == "--man",
             completion = argc > 1 && words[1] == "--bash-completion";
  const bool installed = manual || completion || (argc > 0 && has_installed_name(program, words[0]));
  const std::string name = installed ? installed_name(program) : program.name;
  const std::string examples = examples_for(program, name);
  CLI::App app(program.description, name);
  app.set_version_flag("--version", name + " " + version, "Print the version");
  app.set_help_flag("-h,--help", "Print this help");
  app.footer("Examples:\n" + examples);
  app.get_formatter()->column_width(32);
  define(app);
  if (manual || completion) {
    return run_action(name, [&] {
      fmt::print("{}", manual ? manual_page(app, examples, {argv + 2, argv + argc}) : bash_completion(app));
    });
  }
  if (auto status = parse(app, argc, argv)) return *status;
  return run_action(name, action);
}

CLI::Validator finite_range(double low, double high) {
  auto check = [low, high](const std::string& text) -> std::string {
    double value = 0;
    bool number = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
    if (number && value >= low && value <= high) return {};
    if (std::isfinite(high)) return fmt::format("'{}' is not a number from {} to {}", text, low, high);
    return fmt::format("'{}' is not a number from {} up", text, low);
  };
  return {check, fmt::format("{}..{}", low, std::isfinite(high) ? fmt::format("{}", high) : "")};
}

CLI::Validator not_empty() {
  return {[](const std::string& text) { return std::string(text.empty() ? "must not be empty" : ""); }, ""};
}

}  // namespace rwkv::apps
