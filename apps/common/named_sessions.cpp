#include "apps/common/named_sessions.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <string_view>
#include <vector>

#include "apps/common/history.h"
#include "apps/common/progress.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "model/state_file.h"

namespace rwkv::apps {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view suffix = ".state";

fs::path folder() {
  std::string path = user_path("XDG_DATA_HOME", ".local/share", "sessions");
  if (path.empty()) throw Error("there is no place for sessions: set HOME or XDG_DATA_HOME");
  return path;
}

// The checkpoint that a session was held with.
std::string model_of(const fs::path& path) {
  try {
    const StateFile state = read_state_file(MappedFile::open(path.string()));
    return state.source.empty() ? "an unnamed model" : printable(state.source);
  } catch (const Error&) {
    return "cannot be read";
  }
}

}  // namespace

std::string session_path(const std::string& name) {
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (name.empty() || name.starts_with('.') || name.find_first_not_of(letters) != std::string::npos) {
    throw Error(fmt::format(
        "'{}' is no name for a session: use letters, digits, dots, dashes and underscores", printable(name)));
  }
  fs::path path = folder();
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw system_error(path.string(), "make the folder", error.value());
  fs::permissions(path, fs::perms::owner_all, error);  // nobody else is to read what was said
  return (path / (name + std::string(suffix))).string();
}

// Each save puts a new file in place of the session's, so the lock is on a file beside it. The system lets go
// of it when the program ends, however it ends.
void lock_session(const std::string& path) {
  const std::string beside = path + ".lock";
  const int descriptor = open(beside.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) throw system_error(beside, "open", errno);
  if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) return;
  const bool taken = errno == EWOULDBLOCK;
  close(descriptor);
  if (!taken) return;
  throw Error(fmt::format("session '{}' is open in another chat: end that one, or choose another name",
                          fs::path(path).stem().string()));
}

std::string list_sessions() {
  std::vector<fs::directory_entry> entries;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder(), none)) {
    if (entry.path().extension() == suffix) entries.push_back(entry);
  }
  std::ranges::sort(entries);
  std::string text;
  for (const auto& entry : entries) {
    struct stat status = {};
    if (stat(entry.path().c_str(), &status) != 0) continue;
    std::tm when = {};
    localtime_r(&status.st_mtime, &when);
    text += fmt::format("{:20} {:%Y-%m-%d %H:%M}  {:>8}  {}\n", printable(entry.path().stem().string()), when,
                        human_bytes(static_cast<uint64_t>(status.st_size)), model_of(entry.path()));
  }
  return text.empty() ? "there are no sessions yet: chat --session NAME begins one\n" : text;
}

}  // namespace rwkv::apps
