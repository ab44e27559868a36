#include "apps/common/history.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>

#include "core/error.h"
#include "core/output_file.h"

namespace rwkv::apps {
namespace {

namespace fs = std::filesystem;

std::string escaped(const std::string& line) {
  std::string text;
  for (char c : line) {
    if (c == '\\')
      text += "\\\\";
    else if (c == '\n')
      text += "\\n";
    else
      text += c;
  }
  return text + "\n";
}

std::string unescaped(const std::string& text) {
  std::string line;
  for (size_t i = 0; i < text.size(); i++) {
    bool escape = text[i] == '\\' && i + 1 < text.size();
    if (escape) i++;
    line += escape && text[i] == 'n' ? '\n' : text[i];
  }
  return line;
}

void rewrite(const std::string& path, const std::vector<std::string>& lines) {
  try {
    OutputFile file(path);
    for (const std::string& line : lines) {
      std::string text = escaped(line);
      file.write(std::as_bytes(std::span(text)));
    }
    file.commit();
  } catch (const Error&) {  // the long file stays
  }
}

}  // namespace

std::vector<std::string> load_history(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(unescaped(line));
  bool much_longer = lines.size() > 2 * max_history_lines;
  if (lines.size() > max_history_lines) lines.erase(lines.begin(), lines.end() - max_history_lines);
  if (much_longer) rewrite(path, lines);
  return lines;
}

void append_history(const std::string& path, const std::string& line) {
  std::error_code ignored;
  fs::create_directories(fs::path(path).parent_path(), ignored);
  int file = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return;
  std::string text = escaped(line);
  ssize_t written =
      write(file, text.data(), text.size());  // at once, so that lines of two programs don't mix
  static_cast<void>(written);
  close(file);
}

std::string user_path(const char* variable, const std::string& otherwise, const std::string& name) {
  const char *directory = std::getenv(variable), *home = std::getenv("HOME");
  // A relative path is to be ignored, says the XDG specification.
  if (directory != nullptr && *directory == '/') return (fs::path(directory) / "rwkv" / name).string();
  if (home == nullptr || *home == '\0') return "";
  return (fs::path(home) / otherwise / "rwkv" / name).string();
}

std::string in_home(const std::string& path) {
  const char* home = std::getenv("HOME");
  const bool named = (path == "~" || path.starts_with("~/")) && home != nullptr && *home != '\0';
  return named ? (fs::path(home) / path.substr(std::min<size_t>(path.size(), 2))).string() : path;
}

}  // namespace rwkv::apps
