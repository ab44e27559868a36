#include <fmt/format.h>
#include <histedit.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/common/history.h"
#include "apps/common/interrupt.h"
#include "apps/common/line_reader.h"
#include "apps/common/replaced.h"
#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv::apps {
namespace {

constexpr char prompt_escape = '\1';

// What terminals put around pasted text when they are asked to.
constexpr std::string_view paste_on = "\x1b[?2004h", paste_off = "\x1b[?2004l";
constexpr std::string_view paste_begin = "\x1b[200~", paste_end = "\x1b[201~";
// In the editor a pasted line break or tab is a character that can be seen and is not a key.
constexpr char32_t newline_sign = 0x2424, tab_sign = 0x2409;
constexpr std::string_view newline_sign_bytes = "\u2424", tab_sign_bytes = "\u2409";

// What the handlers need.
termios original_mode;
std::atomic<bool> stop_wanted{false}, size_changed{false};
constexpr std::array ending_signals = {SIGTERM, SIGHUP, SIGQUIT};
std::array<struct sigaction, ending_signals.size()> previous_actions;
bool asks_for_pastes = false;

void ask_for_pastes(bool on) {
  std::string_view sequence = on ? paste_on : paste_off;
  ssize_t ignored = asks_for_pastes ? write(STDOUT_FILENO, sequence.data(), sequence.size()) : 0;
  static_cast<void>(ignored);
}

void on_stop(int) {
  stop_wanted = true;
  wake_reader();
}

void on_new_size(int) {
  size_changed = true;
  wake_reader();
}

// The terminal as it was, then what the signal does otherwise.
void on_end(int signal) {
  ask_for_pastes(false);
  tcsetattr(STDIN_FILENO, TCSANOW, &original_mode);
  for (size_t i = 0; i < ending_signals.size(); i++) {
    if (ending_signals[i] == signal) sigaction(signal, &previous_actions[i], nullptr);
  }
  raise(signal);
}

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}

// A signal that was ignored stays so, as under nohup.
void catch_ending_signals() {
  for (size_t i = 0; i < ending_signals.size(); i++) {
    sigaction(ending_signals[i], nullptr, &previous_actions[i]);
    if (previous_actions[i].sa_handler != SIG_IGN) set_handler(ending_signals[i], on_end);
  }
}

class TerminalReader final : public LineReader {
 public:
  explicit TerminalReader(TerminalOptions options) : options_(std::move(options)) {
    tcgetattr(STDIN_FILENO, &original_mode);
    // The editor counts characters in the locale's encoding; models speak UTF-8.
    std::setlocale(LC_CTYPE, "C.UTF-8");
    editor_ = el_init("rwkv-chat", stdin, stdout, stderr);
    history_ = history_init();
    if (editor_ == nullptr || history_ == nullptr)
      throw Error("the terminal cannot be set up for line editing");
    HistEvent event;
    history(history_, &event, H_SETSIZE, static_cast<int>(max_history_lines));
    history(history_, &event, H_SETUNIQUE, 1);
    if (!options_.history.empty()) {
      for (const std::string& line : load_history(options_.history))
        history(history_, &event, H_ENTER, line.c_str());
    }
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_PROMPT_ESC, &TerminalReader::prompt_of, prompt_escape);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_HIST, history, history_);
    el_set(editor_, EL_GETCFN, &TerminalReader::read_character);
    el_source(editor_, nullptr);
    catch_ending_signals();
    set_handler(SIGWINCH, on_new_size);
    const char* kind = std::getenv("TERM");
    asks_for_pastes = kind != nullptr && *kind != '\0' && std::string_view(kind) != "dumb";
    ask_for_pastes(true);
  }

  ~TerminalReader() override {
    ask_for_pastes(false);
    for (size_t i = 0; i < ending_signals.size(); i++) {
      sigaction(ending_signals[i], &previous_actions[i], nullptr);
    }
    std::signal(SIGWINCH, SIG_DFL);
    history_end(history_);
    el_end(editor_);
  }

  Input read(std::string& line, const std::string& prompt) override {
    int length = 0;
    prompt_ = options_.colour ? "\1\x1b[1m\1" + prompt + "\1\x1b[0m\1 " : prompt + " ";
    set_handler(SIGTSTP, on_stop);
    el_set(editor_, EL_PREP_TERM, 1);  // before the prompt is seen: what is typed then is echoed once
    const char* text = el_gets(editor_, &length);
    std::signal(SIGTSTP, SIG_DFL);
    if (text == nullptr || length <= 0) {
      if (!interrupted()) return Input::end;
      el_reset(editor_);
      return Input::interrupted;
    }
    line.assign(text, static_cast<size_t>(length));
    if (line.ends_with('\n')) line.pop_back();
    std::replace(line.begin(), line.end(), '\r', '\n');  // Ctrl-V Enter
    remember(line);
    line = replaced(replaced(line, newline_sign_bytes, "\n"), tab_sign_bytes, "\t");
    if (line.size() <= max_line_bytes) return Input::line;
    line.clear();
    return Input::too_long;
  }

 private:
  // A line of the history is one line on the screen.
  void remember(const std::string& typed) {
    if (typed.find_first_not_of(" \t\n") == std::string::npos) return;
    std::string line = replaced(typed, "\n", newline_sign_bytes);
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (!options_.history.empty()) append_history(options_.history, line);
  }

  static TerminalReader& self(EditLine* editor) {
    void* data = nullptr;
    el_get(editor, EL_CLIENTDATA, &data);
    return *static_cast<TerminalReader*>(data);
  }

  static char* prompt_of(EditLine* editor) { return self(editor).prompt_.data(); }

  // Adds what all completions of the line have in common; lists them when that is nothing. Not a function of
  // the editor's (EL_ADDFN): it never frees the names of those.
  void complete() {
    const LineInfo* info = el_line(editor_);
    const std::string_view typed(info->buffer, static_cast<size_t>(info->cursor - info->buffer));
    std::vector<std::string_view> fitting;
    for (const std::string& c : options_.completions) {
      if (c.size() > typed.size() && c.starts_with(typed)) fitting.push_back(c);
    }
    if (typed.empty() || fitting.empty() || info->cursor != info->lastchar) return el_beep(editor_);
    const std::string added = common_beginning(fitting).substr(typed.size());
    if (added.empty()) {
      std::string list = "\n";
      for (std::string_view c : fitting)
        list += fmt::format("{}  ", c.substr(0, c.find_last_not_of(' ') + 1));
      std::fputs((list + "\n").c_str(), stdout);
    } else if (el_insertstr(editor_, added.c_str()) != 0) {
      return el_beep(editor_);
    }
    el_set(editor_, EL_REFRESH);
  }

  static std::string common_beginning(const std::vector<std::string_view>& texts) {
    std::string_view common = texts.front();
    for (std::string_view text : texts) {
      const auto [end, other] = std::ranges::mismatch(common, text);
      common = common.substr(0, static_cast<size_t>(end - common.begin()));
    }
    return std::string(common);
  }

  // As EL_GETCFN wants it: 1 and a character, 0 at the end, -1 with errno.
  static int read_character(EditLine* editor, wchar_t* character) {
    TerminalReader& reader = self(editor);
    while (true) {
      if (!reader.pending_.empty() && !reader.take_paste_mark()) {
        Utf8Char c = read_utf8(reader.pending_);
        if (c.kind != Utf8Char::Kind::incomplete) {
          reader.pending_.erase(0, c.length);
          *character = static_cast<wchar_t>(reader.pasting_ ? pasted(c.code) : c.code);
          if (*character != L'\t') return 1;
          reader.complete();
          continue;
        }
      }
      if (!reader.wait()) {
        errno = EINTR;
        return -1;
      }
      char byte = 0;
      ssize_t count = ::read(STDIN_FILENO, &byte, 1);
      if (count == 1) reader.pending_ += byte;
      if (count == 0) return 0;
      if (count < 0 && errno != EINTR && errno != EAGAIN) return -1;
    }
  }

  // True when what came is the mark around pasted text, which is taken, or may become it.
  bool take_paste_mark() {
    std::string_view mark = pasting_ ? paste_end : paste_begin;
    if (pending_ == mark) {
      pending_.clear();
      pasting_ = !pasting_;
      return true;
    }
    return asks_for_pastes && mark.starts_with(pending_);
  }

  static char32_t pasted(char32_t code) {
    if (code == '\r' || code == '\n') return newline_sign;
    if (code == '\t') return tab_sign;
    return code < 0x20 || code == 0x7f ? U' ' : code;
  }

  // False when interrupted.
  bool wait() {
    while (!wait_for_input(STDIN_FILENO)) {
      if (interrupted()) {
        pending_.clear();
        pasting_ = false;
        return false;
      }
      if (size_changed.exchange(false)) el_resize(editor_);
      if (stop_wanted.exchange(false)) stop();
    }
    return true;
  }

  // Ctrl-Z: the terminal goes back to the shell as it was, and is taken again afterwards.
  void stop() {
    ask_for_pastes(false);
    el_set(editor_, EL_PREP_TERM, 0);
    std::signal(SIGTSTP, SIG_DFL);
    raise(SIGTSTP);
    set_handler(SIGTSTP, on_stop);
    el_set(editor_, EL_PREP_TERM, 1);
    ask_for_pastes(true);
    el_set(editor_, EL_REFRESH);
  }

  TerminalOptions options_;
  std::string prompt_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  std::string pending_;  // bytes of a character that is not whole, or of a mark
  bool pasting_ = false;
};

}  // namespace

std::unique_ptr<LineReader> make_terminal_reader(const TerminalOptions& options) {
  return std::make_unique<TerminalReader>(options);
}

}  // namespace rwkv::apps
