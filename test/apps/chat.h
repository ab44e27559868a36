// What the tests of chat share: the demo model as a file, and commands.
#pragma once

#include <string>

#include "model/checkpoint/convert.h"
#include "model/text/conversation.h"
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
