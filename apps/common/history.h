// The lines that were typed, from one run to the next: a file with one entry a line, line breaks written as
// \n and backslashes as \\. What cannot be read or written is left out silently: it is a comfort only.
#pragma once

#include <string>
#include <vector>

namespace rwkv::apps {

constexpr size_t max_history_lines = 1000;

/// The last lines in the file, the oldest first. A file that has become much longer is cut.
std::vector<std::string> load_history(const std::string& path);

/// Puts a line behind the others: programs that run at the same time don't disturb each other. Makes the
/// folder when there is none. The file is for its owner alone.
void append_history(const std::string& path, const std::string& line);

/// DIRECTORY/rwkv/NAME, where DIRECTORY is what the variable says (XDG_STATE_HOME, XDG_DATA_HOME) or, without
/// it, `otherwise` in HOME; "" without either.
std::string user_path(const char* variable, const std::string& otherwise, const std::string& name);

/// A path that is ~ or begins with ~/ in HOME, as a shell would take it; any other as it is.
std::string in_home(const std::string& path);

}  // namespace rwkv::apps
