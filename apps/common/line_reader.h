// Lines from a person, with editing and history, or from a pipe or file.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace rwkv::apps {

enum class Input {
  line,
  too_long,     ///< a line longer than max_line_bytes was skipped
  interrupted,  ///< Ctrl-C (catch_interrupts must have been called); what was typed is gone
  end,
};

constexpr size_t max_line_bytes = size_t{64} << 20;

class LineReader {
 public:
  LineReader() = default;
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;
  virtual ~LineReader() = default;

  /// Waits for the next line, without its newline. The last one needs no newline. A terminal shows the prompt
  /// in front. Throws Error when standard input cannot be read.
  virtual Input read(std::string& line, const std::string& prompt) = 0;
};

/// Lines from standard input as they are.
std::unique_ptr<LineReader> make_pipe_reader();

struct TerminalOptions {
  bool colour = false;       ///< prompts are bold
  std::string history = {};  ///< file that keeps the lines typed; "": they are forgotten in the end
  std::vector<std::string> completions = {};  ///< beginnings of lines that Tab completes
};

/// Lines typed on a terminal, which must be both standard input and output. Text that is pasted keeps its
/// line breaks. A signal that ends or stops the program leaves the terminal as it was. There may be only one
/// at a time.
std::unique_ptr<LineReader> make_terminal_reader(const TerminalOptions& options);

/// All of standard input. Throws Error when it cannot be read or is longer than `limit` bytes.
std::string read_all_input(size_t limit = max_line_bytes);

}  // namespace rwkv::apps
