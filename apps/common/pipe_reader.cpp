#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "apps/common/interrupt.h"
#include "apps/common/line_reader.h"
#include "core/error.h"

namespace rwkv::apps {
namespace {

constexpr size_t block_bytes = 65536;

// 0 at the end.
size_t read_input(char* to, size_t size) {
  while (true) {
    ssize_t count = read(STDIN_FILENO, to, size);
    if (count >= 0) return static_cast<size_t>(count);
    if (errno != EINTR && errno != EAGAIN) throw system_error("standard input", "read", errno);
  }
}

class PipeReader final : public LineReader {
 public:
  Input read(std::string& line, const std::string& /*prompt*/) override {
    line.clear();
    bool too_long = false, any = false;
    while (true) {
      if (begin_ == end_) {
        if (!fill()) return Input::interrupted;
        if (end_ == 0) break;
      }
      any = true;
      const char* from = block_.data() + begin_;
      const void* newline = std::memchr(from, '\n', end_ - begin_);
      size_t length =
          newline == nullptr ? end_ - begin_ : static_cast<size_t>(static_cast<const char*>(newline) - from);
      too_long = too_long || line.size() + length > max_line_bytes;
      if (!too_long) line.append(from, length);
      begin_ += length + (newline == nullptr ? 0 : 1);
      if (newline != nullptr) break;
    }
    if (too_long) line.clear();
    return too_long ? Input::too_long : any ? Input::line : Input::end;
  }

 private:
  // False when interrupted.
  bool fill() {
    begin_ = end_ = 0;
    while (!wait_for_input(STDIN_FILENO)) {
      if (interrupted()) return false;
    }
    end_ = read_input(block_.data(), block_.size());
    return true;
  }

  std::vector<char> block_ = std::vector<char>(block_bytes);
  size_t begin_ = 0, end_ = 0;
};

}  // namespace

std::unique_ptr<LineReader> make_pipe_reader() { return std::make_unique<PipeReader>(); }

std::string read_all_input(size_t limit) {
  std::string text;
  std::vector<char> block(block_bytes);
  while (size_t count = read_input(block.data(), block.size())) {
    if (text.size() + count > limit) {
      throw Error(fmt::format("standard input: more than {} bytes, the most that is taken at once", limit));
    }
    text.append(block.data(), count);
  }
  return text;
}

}  // namespace rwkv::apps
