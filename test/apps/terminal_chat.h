// What the tests of chat on a terminal share.
#pragma once

#include <sstream>
#include <string>

#include "test/apps/chat.h"

namespace rwkv::test {

inline const std::string ctrl_c = "\x03", ctrl_d = "\x04", ctrl_z = "\x1a", enter = "\r", up = "\x1b[A";
inline const std::string bold_prompt = "\x1b[1mUser:\x1b[0m ", plain_prompt = "User: ";
inline const std::string bold_label = "\x1b[1mAssistant:\x1b[0m", plain_label = "Assistant:";
inline const std::string hello = "Hello! Ask me about strategies, converting, states or speed.";

/// A terminal of a known kind, and nobody's settings.
inline Environment settings(const std::string& terminal = "xterm", const std::string& no_color = "") {
  return {{"TERM", terminal}, {"NO_COLOR", no_color}, {"HOME", "/dev/null"}, {"EDITRC", ""}};
}

/// A chat that waits for the first message.
struct Chat : Process {
  std::string prompt, greeting;

  explicit Chat(const Arguments& options = {}, const Environment& environment = settings(),
                const std::string& prompt = bold_prompt, const std::string& model = demo_file())
      : Process(Kind::terminal, chat_command(options, model), environment), prompt(prompt) {
    greeting = read_until("answer it.\r\n\r\n");
    read_until(prompt);
  }

  /// What follows the line that is typed, up to the next prompt.
  std::string say(const std::string& line) {
    write(line + enter);
    read_until("\r\n");
    std::string shown = read_until(prompt);
    return shown.substr(0, shown.size() - prompt.size());
  }

  /// Says it, and waits for the end: the exit status.
  int leave(const std::string& keys) {
    write(keys);
    read_rest();
    return wait();
  }
};

/// A reply as a terminal of so many columns shows it: broken between words.
inline std::string reply(const std::string& text, const std::string& label = bold_label, size_t width = 80) {
  std::string line = plain_label, shown = "\r\n" + label;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    bool fits = line.size() + 1 + word.size() <= width;
    shown += (fits ? " " : "\r\n") + word;
    line = fits ? line + " " + word : word;
  }
  return shown + "\r\n\r\n";
}

}  // namespace rwkv::test
