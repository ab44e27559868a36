#include "test/apps/process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

constexpr int patience_milliseconds = 300'000;

int exit_status(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

std::string quoted(const std::string& word) {
  std::string result = "'";
  for (char c : word) result += c == '\'' ? "'\\''" : std::string(1, c);
  return result + "'";
}

std::vector<std::string> environment_with(const Environment& changes) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; entry++) {
    std::string variable = *entry;
    bool changed = false;
    for (const auto& [name, value] : changes) changed = changed || variable.starts_with(name + "=");
    if (!changed) variables.push_back(variable);
  }
  for (const auto& [name, value] : changes) {
    if (!value.empty()) variables.push_back(name + "=" + value);
  }
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

Result run_program(const Arguments& command, const std::string& input, const std::string& redirections) {
  TemporaryDirectory files;
  write_file(files / "input", input);
  std::string line;
  for (const std::string& word : command) line += quoted(word) + " ";
  line += "<" + quoted(files / "input") + " >" + quoted(files / "output") + " 2>" + quoted(files / "errors") +
          " " + redirections;
  int status = std::system(line.c_str());  // NOLINT(bugprone-command-processor): every word is quoted
  int code = exit_status(status);
  return {code, read_file(files / "output"), read_file(files / "errors")};
}

Process::Process(Kind kind, const Arguments& command, const Environment& environment) {
  std::signal(SIGPIPE, SIG_IGN);  // a program that is gone is an Error of write()
  Arguments words = command;
  std::vector<std::string> variables = environment_with(environment);
  std::vector<char*> argv = pointers(words), envp = pointers(variables);
  int to_child[2] = {-1, -1}, from_child[2] = {-1, -1};
  if (kind == Kind::terminal) {
    winsize size = {24, 80, 0, 0};
    id_ = forkpty(&output_, nullptr, nullptr, &size);
    input_ = output_;
  } else {
    if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(from_child, O_CLOEXEC) != 0) throw Error("no pipe");
    id_ = fork();
  }
  if (id_ < 0) throw system_error(command[0], "start", errno);
  if (id_ == 0) {
    // Not what this program ignores, or whoever started it: a shell ignores SIGQUIT for what runs in the
    // background.
    for (int signal : {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM}) std::signal(signal, SIG_DFL);
    if (kind == Kind::pipes) {
      dup2(to_child[0], STDIN_FILENO);
      dup2(from_child[1], STDOUT_FILENO);
    }
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  if (kind == Kind::pipes) {
    close(to_child[0]);
    close(from_child[1]);
    input_ = to_child[1];
    output_ = from_child[0];
  } else {
    fcntl(output_, F_SETFD, FD_CLOEXEC);
  }
}

Process::~Process() {
  if (id_ > 0) {
    kill(id_, SIGKILL);
    waitpid(id_, nullptr, 0);
  }
  close_input();
  if (output_ >= 0) close_output();
}

void Process::write(const std::string& text) const {
  for (size_t at = 0; at < text.size();) {
    ssize_t count = ::write(input_, text.data() + at, text.size() - at);
    if (count < 0) throw system_error("the program", "write to", errno);
    at += static_cast<size_t>(count);
  }
}

void Process::close_input() {
  if (input_ >= 0 && input_ != output_) close(input_);
  input_ = -1;
}

void Process::close_output() {
  close(output_);
  output_ = -1;
}

bool Process::read_more() {
  pollfd wait = {output_, POLLIN, 0};
  if (poll(&wait, 1, patience_milliseconds) == 0) {
    throw Error("the program does not answer; its output since: " + printable(unread_, 2000));
  }
  char block[4096];
  ssize_t count = read(output_, block, sizeof block);
  if (count > 0) unread_.append(block, static_cast<size_t>(count));
  return count > 0;  // a terminal whose program has ended is an error
}

std::string Process::read_until(const std::string& text) {
  size_t found = std::string::npos;
  while ((found = unread_.find(text)) == std::string::npos) {
    if (!read_more()) throw Error("'" + printable(text) + "' never came, but: " + printable(unread_, 2000));
  }
  std::string result = unread_.substr(0, found + text.size());
  unread_.erase(0, result.size());
  return result;
}

std::string Process::read_rest() {
  while (read_more()) {
  }
  return std::exchange(unread_, {});
}

void Process::wait_until_read() const {
  int unread = 1;
  for (int waited = 0; unread > 0; waited += 10) {
    if (ioctl(input_, FIONREAD, &unread) != 0 || waited > patience_milliseconds) {
      throw Error("the program does not read its input");
    }
    if (unread > 0) usleep(10'000);
  }
}

bool Process::running() const {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(id_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

void Process::signal(int number) const { kill(id_, number); }

int Process::wait() {
  int status = 0;
  for (int waited = 0; waitpid(id_, &status, WNOHANG) == 0; waited++) {
    if (waited * 10 > patience_milliseconds) throw Error("the program does not end");
    // What a terminal's program still writes must go somewhere.
    pollfd ready = {output_, POLLIN, 0};
    if (poll(&ready, 1, 10) > 0 && !read_more()) usleep(10'000);
  }
  id_ = -1;
  return exit_status(status);
}

}  // namespace rwkv::test
