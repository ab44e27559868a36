// What the tests of chat share: the demo model as a file, and commands.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint/convert.h"
#include "model/state.h"
#include "test/apps/process.h"
#include "test/model/text/demo.h"

namespace rwkv::test {

/// The demo model, converted, with this text as its vocabulary; "": its own.
inline std::string make_demo_file(const std::string& path, const std::string& vocabulary_file = "") {
  ConvertOptions options;
  options.strategy = "cpu fp32";
  options.vocabulary =
      MappedFile::open(vocabulary_file.empty() ? demo_path("guide-2.5m.vocab.txt") : vocabulary_file);
  convert_model(Checkpoint::open(demo_path("guide-2.5m.pth")), path, options);
  return path;
}

/// The demo model with lines of its vocabulary replaced: words of its answers become other bytes.
inline std::string make_other_words(const TemporaryDirectory& files,
                                    const std::vector<std::pair<std::string, std::string>>& words) {
  std::string vocabulary = read_file(demo_path("guide-2.5m.vocab.txt"));
  for (const auto& [word, bytes] : words) {
    size_t at = vocabulary.find(" " + word + "\n");
    REQUIRE(at != std::string::npos);
    vocabulary.replace(at + 1, word.size(), bytes);
  }
  write_file(files / "vocabulary", vocabulary);
  return make_demo_file(files / "model", files / "vocabulary");
}

/// The same for tokens, whose text becomes a literal of ASCII characters.
inline std::string make_other_tokens(const TemporaryDirectory& files,
                                     const std::vector<std::pair<int32_t, std::string>>& tokens) {
  std::string vocabulary = read_file(demo_path("guide-2.5m.vocab.txt"));
  for (const auto& [token, literal] : tokens) {
    std::string id = std::to_string(token) + " ";
    size_t at = vocabulary.starts_with(id) ? 0 : vocabulary.find("\n" + id) + 1;
    REQUIRE(vocabulary.substr(at).starts_with(id));
    vocabulary.replace(at, vocabulary.find('\n', at) - at,
                       id + literal + " " + std::to_string(literal.size() - 2));
  }
  write_file(files / "vocabulary", vocabulary);
  return make_demo_file(files / "model", files / "vocabulary");
}

inline const std::string& demo_file() {
  static const TemporaryDirectory directory;
  static const std::string path = make_demo_file(directory / "demo.rwkv");
  return path;
}

/// The command line of a greedy chat with the demo model, and more options.
inline Arguments chat_command(const Arguments& options = {}, const std::string& model = demo_file()) {
  Arguments command = {program_path("apps/chat"), model, "--temperature", "0", "--threads", "1"};
  command.insert(command.end(), options.begin(), options.end());
  return command;
}

/// Options with which a reply to "hello" is "Hello Hello Hello" and so on without end.
inline Arguments endless() { return {"--presence", "-100", "--max-tokens", "1000000000"}; }

}  // namespace rwkv::test
