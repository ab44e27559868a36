// chat on a terminal: going back, settings, sessions, history, pasted text, thinking.
#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <string>

#include "apps/common/word_wrap.h"
#include "test/apps/terminal_chat.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

const std::string sum = "what is 3 + 4?", seven = "3 + 4 = 7.", other_sum = "what is 2 + 2?",
                  four = "2 + 2 = 4.";

std::string listed(const std::vector<std::pair<std::string, std::string>>& turns) {
  std::string text;
  for (size_t i = 0; i < turns.size(); i++) {
    text +=
        std::to_string(i + 1) + ". User: " + turns[i].first + "\r\n   Assistant: " + turns[i].second + "\r\n";
  }
  return text + "\r\n";
}

/// Settings with this folder as the home.
Environment at_home(const TemporaryDirectory& files) {
  Environment environment = settings();
  for (auto& [name, value] : environment) {
    if (name == "HOME") value = files / "";
  }
  environment.emplace_back("XDG_STATE_HOME", "");
  environment.emplace_back("XDG_DATA_HOME", "");
  return environment;
}

}  // namespace

TEST_CASE("messages are taken back and said otherwise") {
  Chat chat;
  chat.say("hello");
  chat.say(sum);
  CHECK(chat.say("/history") == listed({{"hello", hello}, {sum, seven}}));
  CHECK(chat.say("/undo") == "The last message was taken back.\r\n\r\n");
  CHECK(chat.say("/history") == listed({{"hello", hello}}));
  chat.say(sum);
  CHECK(chat.say("/edit 1 " + other_sum) == reply(four));
  CHECK(chat.say("/history") == listed({{other_sum, four}}));
  chat.say("hello");
  CHECK(chat.say("/undo 2") == "The last 2 messages were taken back.\r\n\r\n");
  CHECK(chat.say("/history") == "Nothing was said yet.\r\n\r\n");
  for (const char* wrong : {"/undo", "/edit 1 a"})
    CHECK(chat.say(wrong).starts_with("error: there is no message to "));
  chat.say("hello");
  for (const char* wrong : {"/undo 2", "/undo 0", "/undo x", "/undo -1", "/edit 2 a", "/edit a", "/edit 1"}) {
    CHECK(chat.say(wrong).starts_with("error: /"));
  }
  CHECK(chat.say("/history") == listed({{"hello", hello}}));
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("branches on a terminal") {
  Chat chat;
  chat.say("hello");
  chat.prompt = "\x1b[1mUser [b]:\x1b[0m ";
  CHECK(chat.say("/branch b").starts_with("This is branch 'b' now"));
  chat.say(sum);
  CHECK(chat.say("/branches") == "* b\r\n  main\r\n\r\n");
  chat.prompt = bold_prompt;
  CHECK(chat.say("/switch main") == "Branch 'main', after 1 message.\r\n\r\n");
  CHECK(chat.say("/history") == listed({{"hello", hello}}));
  CHECK(chat.say("/switch c") == "error: there is no branch 'c'\r\n\r\n");
  CHECK(chat.say("/branch b") == "error: there is a branch 'b' already\r\n\r\n");
  CHECK(chat.say("/branch").starts_with("error: /branch needs a name"));
}

TEST_CASE("settings are shown and changed") {
  Chat chat({"--seed", "5"});
  std::string all = chat.say("/set");
  for (const char* part :
       {"temperature 0 ", "top_p       0.3", "seed        5", "think       fast", "timing      off"}) {
    CHECK(all.find(part) != std::string::npos);
  }
  CHECK(chat.say("/set max_tokens 2") == "\r\n");
  CHECK(chat.say("hello").find("(ended after 2 tokens: max_tokens)") != std::string::npos);
  chat.say("/set max_tokens 4000");
  chat.say("/set timing on");
  std::string timed = chat.say("hello");
  CHECK(timed.starts_with(reply(hello).substr(0, reply(hello).size() - 2)));
  CHECK(timed.find(" tok/s, the first after ") != std::string::npos);
  for (const char* wrong : {"/set temperature hot", "/set temperature -1", "/set top_p 2", "/set unknown 1",
                            "/set seed", "/set think deep", "/set timing 1", "/set max_tokens 0"}) {
    CHECK(chat.say(wrong).starts_with("error: "));
  }
  CHECK(chat.say("/set").find("temperature 0 ") != std::string::npos);
}

TEST_CASE("a session is saved at each reply, and goes on by its name") {
  TemporaryDirectory files;
  {
    Chat chat({"--session", "one"}, at_home(files));
    chat.say("hello");
    chat.say(sum);
    chat.signal(SIGKILL);
    chat.wait();
  }
  Process chat(Process::Kind::terminal, chat_command({"--session", "one"}), at_home(files));
  std::string greeting = chat.read_until(bold_prompt);
  CHECK(greeting.find("After 2 messages; the last (/history shows all):\r\n\r\nUser: " + sum +
                      "\r\n\r\nAssistant: " + seven) != std::string::npos);
  chat.write("/history" + enter);
  CHECK(chat.read_until(bold_prompt).find(listed({{"hello", hello}, {sum, seven}})) != std::string::npos);
  chat.write("/undo" + enter);
  chat.read_until(bold_prompt);
  chat.write("/exit" + enter);
  CHECK(chat.wait() == 0);
  Process list(Process::Kind::terminal, {program_path("apps/chat"), "--sessions"}, at_home(files));
  const std::string sessions = list.read_rest();
  CHECK(sessions.starts_with("one "));
  CHECK(sessions.ends_with("  guide-2.5m.pth\r\n"));
  Process again(Process::Kind::terminal, chat_command({"--session", "one"}), at_home(files));
  CHECK(again.read_until(bold_prompt).find("After 1 message;") != std::string::npos);
  for (const char* wrong : {"../x", ".", "a b", "a/b"})
    CHECK(run_program(chat_command({"--session", wrong, "--prompt", "hello"})).status == 1);
}

TEST_CASE("a file or name that is empty is refused, not left out") {
  for (const char* option : {"--session", "--load", "--state", "--template", "--vocab"}) {
    const Result result = run_program(chat_command({option, "", "--prompt", "hello"}));
    CHECK(is_error(result, 2));
    CHECK(result.errors.find(option) != std::string::npos);
  }
}

TEST_CASE("a session that is open in another chat is refused, and free when that one ends") {
  TemporaryDirectory files;
  auto open = [&](const Arguments& options) {
    return std::make_unique<Process>(Process::Kind::terminal, chat_command(options), at_home(files));
  };
  {
    Chat chat({"--session", "one"}, at_home(files));
    auto second = open({"--session", "one"});
    CHECK(second->read_rest().find("error: session 'one' is open in another chat") != std::string::npos);
    CHECK(second->wait() == 1);
    auto other = open({"--session", "two", "--prompt", "hello"});
    CHECK(other->read_rest() == hello + "\r\n");
    CHECK(other->wait() == 0);
    chat.say("hello");
    chat.signal(SIGKILL);
    chat.wait();
  }
  auto again = open({"--session", "one"});
  CHECK(again->read_until(bold_prompt).find("After 1 message") != std::string::npos);
}

TEST_CASE("what only begins a conversation says so when a session goes on") {
  TemporaryDirectory files;
  Chat({"--session", "one"}, at_home(files)).say("hello");
  Process chat(Process::Kind::terminal,
               chat_command({"--session", "one", "--state", demo_path("pirate.pth")}), at_home(files));
  const std::string greeting = chat.read_until(bold_prompt);
  CHECK(greeting.find("note: --state is for conversations that begin") != std::string::npos);
  CHECK(greeting.find("After 1 message") != std::string::npos);
  chat.write("/reset" + enter);
  chat.read_until(bold_prompt);
  chat.write("hello" + enter);
  CHECK(chat.read_until(bold_prompt).find("Aye!") != std::string::npos);
}

TEST_CASE("text of the chat's own is broken for the terminal") {
  Chat chat;
  std::istringstream lines(chat.greeting + chat.say("/help"));
  for (std::string line; std::getline(lines, line, '\n');) {
    CAPTURE(line);
    CHECK(line.size() <= 81);  // and a carriage return
  }
}

TEST_CASE("a session that goes on can be reset, and keeps its branches and the names of a prompt file") {
  TemporaryDirectory files;
  write_file(files / "prompt.py", "user = 'Bob'\nbot = 'Alice'\ninit_prompt = 'They talk.'\n");
  auto open = [&](const std::string& name) {
    return std::make_unique<Process>(Process::Kind::terminal, chat_command({"--session", name}),
                                     at_home(files));
  };
  const std::string branch_prompt = "\x1b[1mUser [b]:\x1b[0m ", bob = "\x1b[1mBob:\x1b[0m ";
  auto say = [](Process& chat, const std::string& line, const std::string& prompt) {
    chat.write(line + enter);
    return chat.read_until(prompt);
  };
  {
    auto chat = open("one");
    chat->read_until(bold_prompt);
    say(*chat, "hello", bold_prompt);
    say(*chat, "/branch b", branch_prompt);
    say(*chat, "/undo", branch_prompt);
    chat->write("/exit" + enter);
    CHECK(chat->wait() == 0);
  }
  auto again = open("one");
  again->read_until(branch_prompt);
  CHECK(say(*again, "/switch main", bold_prompt).find("Branch 'main', after 1 message.") !=
        std::string::npos);
  CHECK(say(*again, "/reset", bold_prompt).find("Back to the start.") != std::string::npos);
  CHECK(say(*again, "/history", bold_prompt).find("Nothing was said yet.") != std::string::npos);
  CHECK(say(*again, sum, bold_prompt).find(seven) != std::string::npos);

  for (int run = 0; run < 2; run++) {
    auto chat = open("two");
    chat->read_until(run == 0 ? bold_prompt : bob);
    if (run == 0) say(*chat, "+prompt " + (files / "prompt.py"), bob);
    say(*chat, "hello", bob);
    if (run == 1) {
      say(*chat, "/save " + (files / "state"), bob);
      Demo demo;
      std::string text = demo.tokenizer->decode(load_session(files / "state", demo.model).tokens);
      CHECK(text.starts_with("\nThey talk.\n\nBob: hello\n\nAlice:"));
      CHECK(text.find("\n\nBob: hello\n\nAlice:", 20) != std::string::npos);
      CHECK(text.find("User") == std::string::npos);
    }
    chat->write("/exit" + enter);
    chat->wait();
  }
}

TEST_CASE("a conversation in another template is not loaded") {
  TemporaryDirectory files;
  CHECK(run_program(chat_command({"--template", "qa"}), "hello\n/save " + (files / "qa") + "\n").status == 0);
  Chat chat;
  CHECK(chat.say("/load " + (files / "qa"))
            .find("a conversation in the template 'qa', this one is in 'world'") != std::string::npos);
  CHECK(chat.say("/load " + (files / "qa")).starts_with("error: "));
}

TEST_CASE("a tilde names the home in /save and /load") {
  TemporaryDirectory files;
  Chat chat({}, at_home(files));
  chat.say(sum);
  CHECK(chat.say("/save ~/talk.state") == "Saved to " + (files / "talk.state") + ".\r\n\r\n");
  chat.say("/reset");
  CHECK(chat.say("/load ~/talk.state").starts_with("Loaded a conversation of "));
  CHECK(chat.say("/history") == listed({{sum, seven}}));
  for (const char* folder : {"~", "~/"}) {
    CAPTURE(folder);
    CHECK(
        chat.say(std::string("/save ") + folder).starts_with("error: " + (files / "") + ": is not the name"));
    CHECK(!std::filesystem::exists(folder));
  }
  CHECK(chat.say("/load ~nobody/talk.state").starts_with("error: ~nobody/talk.state: "));
}

TEST_CASE("lines are kept from one run to the next") {
  TemporaryDirectory files;
  for (int run = 0; run < 2; run++) {
    Chat chat({}, at_home(files));
    if (run == 0) chat.say("a \\n b");
    if (run == 0) chat.say(sum);
    if (run == 1) CHECK(chat.say(up + up) == reply(seven));
    CHECK(chat.leave("/exit" + enter) == 0);
  }
  CHECK(read_file(files / ".local/state/rwkv/chat-history") ==
        "a \\\\n b\n" + sum + "\n/exit\n" + sum + "\n/exit\n");
  Chat forgetful({"--no-history"}, at_home(files));
  forgetful.say("hello");
  CHECK(forgetful.leave("/exit" + enter) == 0);
  CHECK(read_file(files / ".local/state/rwkv/chat-history").find("hello") == std::string::npos);
}

TEST_CASE("a message of several lines: backslashes, and pasted text") {
  TemporaryDirectory files;
  Chat chat({}, at_home(files));
  CHECK(chat.greeting.find("\x1b[?2004h") == std::string::npos);  // it comes later, with the first prompt
  chat.write("one\\" + enter);
  chat.read_until("\x1b[1m...\x1b[0m ");
  chat.say("two");
  chat.say("\x1b[200~three\r\n\tfour\x1b[201~ five");
  CHECK(chat.say("/history").find("1. User: one\r\ntwo\r\n") != std::string::npos);
  CHECK(chat.say("/history").find("2. User: three\r\n\r\n") == std::string::npos);
  chat.say("/save " + (files / "state"));
  Demo demo;
  std::string text = demo.tokenizer->decode(load_session(files / "state", demo.model).tokens);
  CHECK(text.find("User: one\ntwo\n\nAssistant:") != std::string::npos);
  CHECK(text.find("User: three\n\tfour five\n\nAssistant:") != std::string::npos);
  // Ctrl-C forgets a message that is not whole.
  chat.write("one\\" + enter);
  chat.read_until("\x1b[1m...\x1b[0m ");
  chat.write(ctrl_c);
  chat.read_until(chat.prompt);
  CHECK(chat.say("hello") == reply(hello));
  CHECK(chat.leave("/exit" + enter) == 0);
}

TEST_CASE("thinking is dimmed on a terminal, left out of a file, and not kept") {
  // The model's answer, whose first tokens are other words; single bytes must stay what they are.
  const std::string question = "what is a strategy";
  Demo demo;
  Session session = demo.asked(question);
  size_t begin = session.tokens.size();
  Generator(demo.executor, *demo.tokenizer, greedy(), {{"\n\n"}, {}, 60})
      .generate(session, [](std::string_view) {});
  for (size_t i = begin; i < begin + 2; i++) REQUIRE(demo.tokenizer->bytes(session.tokens[i]).size() > 1);
  std::string rest;
  for (size_t i = begin + 2; i < session.tokens.size(); i++) rest += demo.tokenizer->bytes(session.tokens[i]);
  TemporaryDirectory files;
  std::string model = make_other_tokens(
      files, {{session.tokens[begin], "' <think>hm'"}, {session.tokens[begin + 1], "'</think>'"}});

  Arguments g1 = {"--template", "g1",         "--bos", "off",         "--think",
                  "off",        "--presence", "0",     "--frequency", "0"};
  Process chat(Process::Kind::terminal, chat_command(g1, model), settings());
  chat.read_until(bold_prompt);
  chat.write(question + enter);
  std::string answer = rest.substr(std::min(rest.find_first_not_of(' '), rest.size()));
  std::string shown = chat.read_until(bold_prompt);
  CHECK(shown.find(bold_label + "\x1b[2m hm\r\n\r\n\x1b[0m" + answer.substr(0, 40)) != std::string::npos);
  chat.write("/history" + enter);
  const std::string line = apps::wrapped("   Assistant: " + answer, 80) + "\n";
  std::string broken;
  for (char c : line) broken += c == '\n' ? "\r\n" : std::string(1, c);
  CHECK(chat.read_until(bold_prompt).find(broken) != std::string::npos);

  g1.insert(g1.end(), {"--prompt", question, "--show-prompt"});
  Result result = run_program(chat_command(g1, model));
  CHECK(result.output == answer + "\n");
  CHECK(result.errors.ends_with("User: " + question + "\n\nAssistant:\n"));
}

TEST_CASE("the commands of v2/chat.py") {
  TemporaryDirectory files;
  write_file(
      files / "prompt.py",
      "user = \"Bob\"\nbot = \"Alice\"\ninterface = \":\"\n\ninit_prompt = f'''\n  {bot} knows.  \n'''\n");
  Chat chat;
  CHECK(chat.say("+") == "error: there is no reply to draw again: write a message first\r\n\r\n");
  CHECK(chat.say("++").starts_with("error: there is no text to go on with"));
  CHECK(chat.say(sum) == reply(seven));
  CHECK(chat.say("+") == reply(seven));
  CHECK(chat.say("+qa " + other_sum).find(four) != std::string::npos);
  CHECK(chat.say("+GEN User: " + sum + "\\n\\nAssistant:").find(seven) != std::string::npos);
  CHECK(chat.say("++").find(seven) != std::string::npos);
  CHECK(chat.say("/history") == listed({{sum, seven}}));
  CHECK(chat.say("+ -temp=2").starts_with("\r\n" + bold_label));
  CHECK(chat.say("/undo") == "The last message was taken back.\r\n\r\n");
  CHECK(chat.say(sum) == reply(seven));
  CHECK(chat.say("+5 is a number") != "");
  CHECK(chat.say("/history").find("2. User: +5 is a number") != std::string::npos);
  CHECK(chat.say("+Reset") == "Back to the start.\r\n\r\n");
  CHECK(chat.say("+gen").starts_with("error: +gen needs more"));
  CHECK(chat.say("+prompt " + (files / "missing")).starts_with("error: "));
  chat.prompt = "\x1b[1mBob:\x1b[0m ";
  chat.say("+prompt " + (files / "prompt.py"));
  chat.say("hello");
  chat.say("/save " + (files / "state"));
  Demo demo;
  std::string text = demo.tokenizer->decode(load_session(files / "state", demo.model).tokens);
  CHECK(text.starts_with("\nAlice knows.\n\nBob: hello\n\nAlice:"));
  CHECK(chat.say("/reset") == "Back to the start.\r\n\r\n");
  chat.say("/save " + (files / "state"));
  CHECK(demo.tokenizer->decode(load_session(files / "state", demo.model).tokens) == "\nAlice knows.\n\n");
}

}  // namespace rwkv::test
