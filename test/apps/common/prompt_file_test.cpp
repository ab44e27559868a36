#include "apps/common/prompt_file.h"

#include <doctest/doctest.h>

#include <string>

#include "apps/common/chat_settings.h"
#include "apps/common/history.h"
#include "core/error.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::apps {
namespace {

using test::TemporaryDirectory;

PromptTemplate read(const std::string& text) {
  TemporaryDirectory files;
  test::write_file(files / "prompt", text);
  return read_prompt_file(files / "prompt", find_prompt_template("world"));
}

}  // namespace

TEST_CASE("prompt files of ChatRWKV and rwkv.cpp") {
  PromptTemplate python = read(
      "interface = \":\"\n"
      "user = \"Bob\"  # names\n"
      "bot = 'Alice'\n\n"
      "# init_prompt = 'not this'\n"
      "init_prompt = f'''\n"
      "A talk of {bot} and {user}\\n{user}{interface} hi \n"
      "\n"
      "\xe3\x80\x80{bot}{interface} hello\n"
      "'''\n");
  CHECK(start_text(python, "") == "\nA talk of Alice and Bob\nBob: hi\n\nAlice: hello\n\n");
  CHECK(message_text(python, "a") == "Bob: a\n\nAlice:");
  PromptTemplate other = read("user='Q'\nbot=\"A\"\ninterface=' ='\ninit_prompt=\"\"\"\"\"\"\n");
  CHECK(start_text(other, "").empty());
  CHECK(message_text(other, "a") == "Q = a\n\nA =");
  PromptTemplate json = read(R"({"user": "Bob", "bot": "Alice", "separator": ":", "prompt": "A\n\nB"})");
  CHECK(start_text(json, "") == "\nA\n\nB\n\n");
  CHECK(message_text(json, "a") == "Bob: a\n\nAlice:");
}

TEST_CASE("what is no prompt file is refused") {
  for (const char* text :
       {"", "user = 'a'\nbot = 'b'\n", "user = 1\nbot = 'b'\ninit_prompt = 'c'\n", "{\"user\": 1}", "{",
        "user = 'a'\nbot = 'b'\ninit_prompt = '''no end\n", "{\"user\": \"a\"}"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(read(text), Error);
  }
}

TEST_CASE("settings in a message hold for it alone, within the bounds of v2/chat.py") {
  ChatSettings settings;
  auto [text, changed] = settings_in_message("tell me -temp=1.5 a story -top_p=0.25", settings);
  CHECK(text == "tell me  a story");
  CHECK(changed.sampling.temperature == 1.5f);
  CHECK(changed.sampling.top_p == 0.25f);
  CHECK(settings_in_message("-temp=0.01 a", settings).second.sampling.temperature == 0.2f);
  CHECK(settings_in_message("-temp=100 a", settings).second.sampling.temperature == 5.0f);
  CHECK(settings_in_message("-top_p=-3 a", settings).second.sampling.top_p == 0.0f);
  CHECK(settings_in_message("x-temp=3", settings).first == "x-temp=3");
  CHECK_THROWS_AS(settings_in_message("-temp=hot", settings), Error);
  CHECK_THROWS_AS(settings_in_message("-temp=", settings), Error);
}

TEST_CASE("the history keeps the last lines, whatever is in them") {
  TemporaryDirectory files;
  std::string path = files / "folder/history";
  CHECK(load_history(path).empty());
  std::vector<std::string> lines = {"a", "two\nlines", "back\\slash \\n", "\xff \t"};
  for (const std::string& line : lines) append_history(path, line);
  CHECK(load_history(path) == lines);
  for (size_t i = 0; i < 2 * max_history_lines; i++) append_history(path, std::to_string(i));
  std::vector<std::string> kept = load_history(path);
  CHECK(kept.size() == max_history_lines);
  CHECK(kept.back() == std::to_string(2 * max_history_lines - 1));
  std::string file = test::read_file(path);
  CHECK(std::count(file.begin(), file.end(), '\n') == static_cast<long>(max_history_lines));
  append_history("/dev/null/none", "a");  // silent
}

}  // namespace rwkv::apps
