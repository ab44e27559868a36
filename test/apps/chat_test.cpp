// chat with files and pipes: scripts, --prompt, errors.
#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <regex>
#include <string>

#include "model/text/prompt_template.h"
#include "test/apps/chat.h"
#include "test/model/checkpoint/build.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

const std::string first_exchange = start_text(find_prompt_template("world"), "");
const std::string question = demo_question, answer = std::string(demo_answer) + "\n";
const std::string say_something = "note: an empty line is no message\n";

Result script(const std::string& input, const Arguments& options = {}) {
  return run_program(chat_command(options), input);
}

/// One line that begins with "error: ".
bool is_error_line(const std::string& text) {
  return text.starts_with("error: ") && text.find('\n') == text.size() - 1;
}

}  // namespace

TEST_CASE("--prompt prints the answer and nothing else") {
  Result result = script("", {"--prompt", question});
  CHECK(result.output == answer);
  CHECK(result.errors.empty());
  CHECK(result.status == 0);

  CHECK(script("", {"--prompt", "\r\n " + question + " \n\n"}).output == answer);
  CHECK(script(question + "\n", {"--prompt", "-"}).output == answer);
  CHECK(script("", {"--prompt", "/exit"}).output != "");  // a message, no command
}

TEST_CASE("every line of a script is a message, and its reply one line of the output") {
  Result result = script(question + "\nwhat is 3 + 4?\r\n  hello  ");
  CHECK(result.output ==
        answer + "3 + 4 = 7.\nHello! Ask me about strategies, converting, states or speed.\n");
  CHECK(result.errors.empty());
  CHECK(result.status == 0);

  result = script("");
  CHECK(result.output.empty());
  CHECK(result.errors.empty());
  CHECK(result.status == 0);
}

TEST_CASE("an empty message is asked for again") {
  Result result = script("\n \t\r\n" + question + "\n\xe3\x80\x80");
  CHECK(result.output == answer);
  CHECK(result.errors == say_something + say_something + say_something);
  CHECK(result.status == 0);

  for (const char* nothing : {"", " ", "\r\n\n"}) {
    result = script("", {"--prompt", nothing});
    CHECK(result.output.empty());
    CHECK(result.errors == "error: --prompt: the message is empty\n");
    CHECK(result.status == 1);
  }
}

TEST_CASE("any bytes make a message") {
  std::string bytes("a\0b \xff\xfe\x80 \xe4\xbd\x1b[2J\x9b", 15);
  Result result = script(bytes + "\n" + question + "\n");
  CHECK(result.status == 0);
  CHECK(result.errors.empty());
  CHECK(result.output.ends_with("\n" + answer));
}

TEST_CASE("the conversation is remembered, reset, saved, loaded and resumed") {
  TemporaryDirectory files;
  std::string file = files / "a conversation.state";
  Result result =
      script(question + "\n/save " + file + "\nhello\n/reset\n/stats\n/load " + file + "\n/stats\n");
  CHECK(result.errors.empty());
  CHECK(result.status == 0);
  std::smatch sizes;
  REQUIRE(std::regex_search(result.output, sizes,
                            std::regex("conversation: (\\d+) tokens[^]*conversation: (\\d+) tokens")));
  CHECK(std::stoi(sizes[1]) < std::stoi(sizes[2]));

  Demo demo;
  Session saved = load_session(file, demo.model);
  CHECK(demo.tokenizer->decode(saved.tokens) ==
        first_exchange + "User: " + question + "\n\nAssistant: " + demo_answer);
  CHECK(std::stoi(sizes[2]) == static_cast<int>(saved.tokens.size()));
  CHECK(same_session(saved, demo.session(saved.tokens)));

  std::string resumed =
      script("/save " + (files / "again.state") + "\nwhat is 3 + 4?\n", {"--load", file}).output;
  CHECK(resumed == "3 + 4 = 7.\n");
  CHECK(same_session(load_session(files / "again.state", demo.model), saved));
}

TEST_CASE("another reply to the same message") {
  TemporaryDirectory files;
  Result result =
      script(question + "\n/save " + (files / "a") + "\n/regenerate\n/regenerate\n/save " + (files / "b"));
  CHECK(result.output == answer + answer + answer);
  Demo demo;
  CHECK(same_session(load_session(files / "a", demo.model), load_session(files / "b", demo.model)));

  result = script("/regenerate\nhello\n/reset\n/regenerate\n");
  CHECK(result.errors ==
        "error: there is no reply to draw again: write a message first\n"
        "error: there is no reply to draw again: write a message first\n"
        "error: standard input: 2 of the lines failed\n");
  CHECK(result.status == 1);
}

TEST_CASE("a state replaces the first exchange") {
  TemporaryDirectory files;
  Demo demo;
  // A trained state as the program keeps it, without tokens: here that of a text.
  Session session = demo.session("User: a\n\nAssistant: b\n\n");
  session.tokens.clear();
  session.logits.clear();
  save_session(files / "trained", session);
  Result result = script(question + "\n/save " + (files / "after"), {"--state", files / "trained"});
  CHECK(result.output == answer);
  CHECK(result.errors.find("holds a conversation") == std::string::npos);
  Session after = load_session(files / "after", demo.model);
  CHECK(demo.tokenizer->decode(after.tokens) == "User: " + question + "\n\nAssistant: " + demo_answer);
  feed(demo.executor, after.tokens, session);
  CHECK(same_session(after, session));
  CHECK(
      script("/history", {"--state", files / "after"}).errors.find("note: " + (files / "after") + " holds") ==
      0);
}

TEST_CASE("the demo model's trained state changes how it answers") {
  Result result = script(question + "\nhello\n", {"--state", demo_path("pirate.pth")});
  CHECK(result.status == 0);
  CHECK(result.output ==
        "Aye! " + std::string(demo_answer) +
            " Arr!\nAye! Hello! Ask me about strategies, converting, states or speed. Arr!\n");
}

TEST_CASE("commands that fail are told, and the script goes on") {
  TemporaryDirectory files;
  write_file(files / "no state", "nothing");
  for (const std::string& command :
       {std::string("/what"), std::string("/"), std::string("/save"), std::string("/load"),
        std::string("/exit now"), "/load " + (files / "missing"), "/load " + (files / "no state"),
        "/load " + demo_file(), "/save " + (files / "missing/file"), std::string("/\x1b[2J")}) {
    CAPTURE(command);
    Result result = script(command + "\n" + question + "\n");
    CHECK(result.output == answer);
    CHECK(result.status == 1);
    size_t end = result.errors.find('\n');
    CHECK(is_error_line(result.errors.substr(0, end + 1)));
    CHECK(result.errors.substr(end + 1) == "error: standard input: 1 of the lines failed\n");
    CHECK(result.errors.find('\x1b') == std::string::npos);
  }
  CHECK(script("/exit\n" + question + "\n").output.empty());
  CHECK(script("/help\n").output.find("/retry") != std::string::npos);
}

TEST_CASE("wrong command lines end with status 2") {
  const std::vector<Arguments> wrong = {
      {"--temperature", "nan"},
      {"--temperature", "inf"},
      {"--temperature", "-1"},
      {"--temperature", "0,5"},
      {"--temperature", ""},
      {"--top-p", "1.1"},
      {"--top-p", "-0.1"},
      {"--top-p", "nan"},
      {"--top-k", "-1"},
      {"--top-k", "1.5"},
      {"--presence", "1001"},
      {"--frequency", "x"},
      {"--decay", "2"},
      {"--seed", "-1"},
      {"--seed", "abc"},
      {"--chunk", "0"},
      {"--chunk", "65537"},
      {"--max-tokens", "0"},
      {"--threads", "0"},
      {"--threads"},
      {"--unknown"},
      {"--seed", "1", "--seed", "1"},
      {"--state", "a", "--load", "b"},
      {"second-model"},
  };
  for (const Arguments& arguments : wrong) {
    CAPTURE(arguments);
    Arguments command = {program_path("apps/chat"), demo_file(), "--prompt", "hello"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    Result result = run_program(command);
    CHECK(result.status == 2);
    CHECK(is_error_line(result.errors));
    CHECK(result.output.empty());
  }
}

TEST_CASE("--vocab takes a vocabulary file and a model file that holds one") {
  const std::string text = demo_path("guide-2.5m.vocab.txt");
  CHECK(script("", {"--prompt", question, "--vocab", text}).output == answer);
  CHECK(script("", {"--prompt", question, "--vocab", demo_file()}).output == answer);

  TemporaryDirectory files;
  const std::string without = files / "without.rwkv";
  const Arguments convert = {program_path("tools/rwkv-convert"), demo_path("guide-2.5m.pth"), without};
  REQUIRE(run_program(convert).status == 0);
  for (const std::string& file : {without, demo_path("guide-2.5m.pth")}) {
    const Result result = script("", {"--prompt", question, "--vocab", file});
    CHECK(result.status == 1);
    CHECK(contains(result.errors, "holds no vocabulary"));
  }
}

TEST_CASE("errors in what the command line names end with status 1") {
  TemporaryDirectory files;
  write_file(files / "text", "nothing of the kind");
  const std::vector<Arguments> wrong = {
      {"--state", files / "missing"}, {"--load", files / "text"}, {"--vocab", files / "text"},
      {"--vocab", files / "missing"}, {"--strategy", "cpu fp64"}, {"--strategy", "cpu fp16 *99"},
  };
  for (const Arguments& arguments : wrong) {
    CAPTURE(arguments);
    Result result = script("hello\n", arguments);
    CHECK(result.status == 1);
    CHECK(is_error_line(result.errors));
    CHECK(result.output.empty());
  }
  Result result = run_program({program_path("apps/chat"), files / "missing", "--prompt", "hello"});
  CHECK(result.status == 1);
  CHECK(is_error_line(result.errors));
}

TEST_CASE("--help and --version") {
  Result help = run_program({program_path("apps/chat"), "--help"});
  CHECK(help.status == 0);
  CHECK(help.output.find("Examples:") != std::string::npos);
  for (const char* option :
       {"--temperature", "--top-p", "--top-k", "--presence", "--frequency", "--decay", "--seed", "--chunk",
        "--max-tokens", "--state", "--load", "--prompt", "--strategy", "--vocab"}) {
    CHECK(help.output.find(option) != std::string::npos);
  }
  CHECK(run_program({program_path("apps/chat"), "--version"}).output.starts_with("chat "));
  CHECK(run_program({program_path("apps/chat"), "--help"}, "", ">/dev/full").status == 1);
}

TEST_CASE("standard streams that are closed or full") {
  auto run = [](const std::string& redirections) {
    return run_program(chat_command(), question + "\n" + question + "\n", redirections);
  };
  CHECK(run("<&-").status == 0);
  CHECK(run("<&-").output.empty());
  for (const char* output : {">&-", ">/dev/full"}) {
    Result result = run(output);
    CHECK(result.status == 1);
    CHECK(is_error_line(result.errors));
    CHECK(result.errors.find("standard output: cannot write") != std::string::npos);
  }
  CHECK(run("2>&-").output == answer + answer);
  CHECK(run("2>/dev/full").output == answer + answer);
  CHECK(run_program(chat_command({"--bad"}), "", "2>/dev/full").status == 2);
  CHECK(run_program(chat_command({"--load", "missing"}), "", "2>&-").status == 1);
  // A file that is written must not become standard output.
  TemporaryDirectory files;
  CHECK(run_program(chat_command(), "/save " + (files / "file") + "\nhello\n", ">&-").status == 1);
  Demo demo;
  CHECK(!load_session(files / "file", demo.model).tokens.empty());

  Arguments silent = {"/bin/sh", "-c", R"(exec "$@" 2>/dev/null)", "sh"};
  for (const std::string& word : chat_command()) silent.push_back(word);
  Process nobody_reads(Process::Kind::pipes, silent);
  nobody_reads.close_output();
  nobody_reads.write("hello\n");
  CHECK(nobody_reads.wait() == 1);
}

TEST_CASE("the same seed gives the same reply") {
  auto reply = [](const std::string& seed, const Arguments& more) {
    Arguments command = {program_path("apps/chat"),
                         demo_file(),
                         "--temperature",
                         "30",
                         "--top-p",
                         "0.999",
                         "--max-tokens",
                         "30",
                         "--prompt",
                         "hello",
                         "--seed",
                         seed};
    command.insert(command.end(), more.begin(), more.end());
    return run_program(command).output;
  };
  std::string first = reply("18446744073709551615", {});
  CHECK(reply("18446744073709551615", {"--chunk", "1", "--threads", "2"}) == first);
  CHECK(reply("1", {}) != first);
}

TEST_CASE("the number of tokens is limited") {
  Result result = script("", {"--prompt", question, "--max-tokens", "3"});
  CHECK(std::string(demo_answer).starts_with(result.output.substr(0, result.output.size() - 1)));
  CHECK(result.output.size() > 3);
  CHECK(result.errors == "(ended after 3 tokens: max_tokens)\n");
}

TEST_CASE("a signal ends the reply of a script, and its wait for input the program") {
  Process chat(Process::Kind::pipes, chat_command(endless()));
  chat.write("hello\n");
  chat.read_until("Hello Hello Hello");
  chat.signal(SIGINT);
  chat.write("/stats\n");
  chat.read_until("\nconversation: ");
  chat.read_until("last reply: ");
  sleep(1);  // soon after the first, a second signal would end the program in any case
  chat.signal(SIGINT);
  CHECK(chat.wait() == 128 + SIGINT);
}

TEST_CASE("signals that follow each other end a script, and one ends --prompt") {
  Process chat(Process::Kind::pipes, chat_command(endless()));
  std::string messages;
  for (int i = 0; i < 5000; i++) messages += "hello\n";
  chat.write(messages);
  chat.read_until("Hello Hello Hello");
  int signals = 0;
  while (chat.running() && signals < 1000) {
    chat.signal(SIGINT);
    signals++;
    usleep(20'000);
  }
  CHECK(signals < 1000);
  CHECK(chat.wait() == 128 + SIGINT);

  Arguments command = chat_command(endless());
  command.insert(command.end(), {"--prompt", "hello"});
  Process prompt(Process::Kind::pipes, command);
  prompt.read_until("Hello Hello Hello");
  prompt.signal(SIGINT);
  CHECK(prompt.wait() == 128 + SIGINT);
}

TEST_CASE("a line of ten million bytes is a message that can be interrupted") {
  Process chat(Process::Kind::pipes, chat_command({"--chunk", "16"}));
  std::string line;
  line.resize(10'000'000, 'x');
  chat.write(line + "\n" + question + "\n/stats\n");
  chat.wait_until_read();
  chat.signal(SIGINT);
  // The long message is as if it had never been.
  chat.close_input();
  std::string output = chat.read_rest();
  CHECK(output.starts_with(answer + "conversation: "));
  CHECK(chat.wait() == 0);
}

}  // namespace rwkv::test
