// chat on a terminal: what a person types and sees.
#include <doctest/doctest.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "test/apps/terminal_chat.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

bool same_mode(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_lflag == b.c_lflag &&
         std::memcmp(a.c_cc, b.c_cc, sizeof a.c_cc) == 0;
}

termios mode_of(int terminal) {
  termios mode = {};
  REQUIRE(tcgetattr(terminal, &mode) == 0);
  return mode;
}

}  // namespace

TEST_CASE("a chat on a terminal greets, answers, and ends with Ctrl-D") {
  Chat chat;
  CHECK(chat.greeting.find("RWKV-7, 6 layers") != std::string::npos);
  CHECK(chat.greeting.find("This is a demo model") != std::string::npos);
  CHECK(chat.greeting.find("make chat MODEL=") != std::string::npos);
  CHECK(chat.greeting.ends_with(
      "\r\nUser: hi\r\n\r\nAssistant: Hi. I am your assistant and I will provide expert full response in"
      "\r\nfull details. Please feel free to ask any question and I will always answer it.\r\n\r\n"));
  CHECK(chat.say(demo_question) == reply(demo_answer));
  CHECK(chat.say("what is 3 + 4?") == reply("3 + 4 = 7."));
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("a model that is not the demo is greeted without a word of it") {
  TemporaryDirectory files;
  write_file(files / "other.pth", read_file(demo_path("guide-2.5m.pth")));
  ConvertOptions options;
  options.vocabulary = MappedFile::open(demo_path("guide-2.5m.vocab.txt"));
  convert_model(Checkpoint::open(files / "other.pth"), files / "other.rwkv", options);
  Chat chat({}, settings(), bold_prompt, files / "other.rwkv");
  CHECK(chat.greeting.find("demo") == std::string::npos);
}

TEST_CASE("lines can be edited and called back") {
  Chat chat;
  CHECK(chat.say("hexxx\x7f\x7f\x7fllo") == reply(hello));
  CHECK(chat.say("llo\x01he") == reply(hello));                          // Ctrl-A: to the front
  CHECK(chat.say("hello\xc3\xa4\xe4\xbd\xa0\x7f\x7f") == reply(hello));  // one key for one character
  CHECK(chat.say("what is 3 + 4?") == reply("3 + 4 = 7."));
  CHECK(chat.say(up) == reply("3 + 4 = 7."));
  CHECK(chat.say(up + up) == reply(hello));  // the same line twice is kept once
  // Ctrl-V Enter: a message of two lines, which the saved conversation shows.
  TemporaryDirectory files;
  chat.say(std::string("one\x16\rtwo"));
  chat.say("/save " + (files / "state"));
  Demo demo;
  std::string text = demo.tokenizer->decode(load_session(files / "state", demo.model).tokens);
  CHECK(text.find("User: one\ntwo\n\nAssistant:") != std::string::npos);
  CHECK(chat.leave("/exit\r") == 0);
}

TEST_CASE("commands on a terminal") {
  TemporaryDirectory files;
  Chat chat;
  CHECK(chat.say("/stats").find("conversation: ") == 0);
  CHECK(chat.say("/regenerate").find("error: there is no reply to draw again") == 0);
  CHECK(chat.say("") == "note: an empty line is no message\r\n\r\n");
  CHECK(chat.say(demo_question) == reply(demo_answer));
  CHECK(chat.say("/regenerate") == reply(demo_answer));
  std::string stats = chat.say("/stats");
  for (const char* part :
       {"last message: ", "last reply: ", " tok/s", "the first text after ", "a state of "}) {
    CHECK(stats.find(part) != std::string::npos);
  }
  CHECK(chat.say("/save " + (files / "state")) == "Saved to " + (files / "state") + ".\r\n\r\n");
  CHECK(chat.say("/reset") == "Back to the start.\r\n\r\n");
  CHECK(chat.say("/load " + (files / "state")).find("Loaded a conversation of ") == 0);
  CHECK(chat.say("/load " + (files / "missing")).find("error: ") == 0);
  CHECK(chat.say("/help").find("/retry") != std::string::npos);
  CHECK(chat.say("/temperature 0.5") ==
        "error: unknown command '/temperature': a setting is changed by /set temperature 0.5\r\n\r\n");
  CHECK(chat.say("/what") == "error: unknown command '/what': /help lists the commands\r\n\r\n");
  CHECK(chat.leave("/exit\r") == 0);
}

TEST_CASE("Tab completes commands and settings, and lists what a line may become") {
  Chat chat;
  CHECK(chat.say("/hi\t").ends_with("Nothing was said yet.\r\n\r\n"));
  chat.write("/set t\t");
  chat.read_until("\r\n/set temperature  /set top_p  /set top_k  /set think  /set timing  \r\n");
  chat.read_until("/set t");
  chat.write("e\t0.5" + enter);
  CHECK(chat.read_until("\r\n\r\n").find("error") == std::string::npos);
  chat.read_until(bold_prompt);
  CHECK(chat.say("/set").find("temperature 0.5 ") != std::string::npos);
  chat.say("/set temperature 0");
  CHECK(chat.say("what is 3\t + 4?").ends_with(reply("3 + 4 = 7.")));  // no beginning of a command
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("Ctrl-C at the prompt clears the line") {
  Chat chat;
  chat.write("what is 3");
  chat.read_until("what is 3");
  chat.write(ctrl_c);
  CHECK(chat.read_until(chat.prompt) == "\r\n" + chat.prompt);
  chat.write(ctrl_c);
  chat.read_until(chat.prompt);
  CHECK(chat.say("hello") == reply(hello));
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("Ctrl-C ends a reply and keeps what was shown") {
  TemporaryDirectory files;
  Chat chat(endless());
  chat.write("hello" + enter);
  chat.read_until("Hello Hello Hello");
  chat.write(ctrl_c);
  chat.read_until(chat.prompt);
  chat.say("/save " + (files / "state"));
  Demo demo;
  Session saved = load_session(files / "state", demo.model);
  std::string text = demo.tokenizer->decode(saved.tokens);
  CHECK(text.find("User: hello\n\nAssistant: Hello Hello Hello") != std::string::npos);
  CHECK(same_session(saved, demo.session(saved.tokens)));
  // The conversation goes on.
  chat.write("hello" + enter);
  chat.read_until(bold_label + " ");
  chat.write(ctrl_c);
  chat.read_until(chat.prompt);
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("Ctrl-C while a message is read takes the message back") {
  Chat chat({"--chunk", "1"});
  std::string before = chat.say("/stats");
  for (int part = 0; part < 2; part++) {
    for (int i = 0; i < 1500; i++) chat.write("q7");
    chat.write("." + std::to_string(part));
    chat.read_until("." + std::to_string(part));
  }
  chat.write(enter);
  chat.read_until("\r\n");
  chat.write(ctrl_c);
  chat.read_until("The message was taken back.");
  chat.read_until(chat.prompt);
  CHECK(chat.say("/stats") == before);
  CHECK(chat.say(demo_question) == reply(demo_answer));
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("SIGINT while loading ends the program") {
  Arguments words = chat_command();
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string& model = demo_file();
  pid_t id = fork();
  if (id == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  // From one system call to the next, until the model is mapped.
  int status = 0;
  while (waitpid(id, &status, 0) == id && WIFSTOPPED(status)) {
    if (read_file("/proc/" + std::to_string(id) + "/maps").find(model) != std::string::npos) break;
    REQUIRE(ptrace(PTRACE_SYSCALL, id, nullptr, nullptr) == 0);
  }
  REQUIRE(WIFSTOPPED(status));
  kill(id, SIGINT);
  REQUIRE(ptrace(PTRACE_DETACH, id, nullptr, nullptr) == 0);
  REQUIRE(waitpid(id, &status, 0) == id);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("colours only where they are wanted") {
  for (const Environment& environment : {settings("xterm", "1"), settings("dumb"), settings("")}) {
    Chat chat({}, environment, plain_prompt);
    CHECK(chat.say("hello") == reply(hello, plain_label));
    CHECK(chat.greeting.find('\x1b') == std::string::npos);
    CHECK(chat.leave("/exit\r") == 0);
  }
}

TEST_CASE("control characters of a model are not sent to a terminal") {
  TemporaryDirectory files;
  // The command that sets a terminal's title.
  std::string model = make_other_words(files, {{"' keeps' 6", "b' \\x1b]0;title\\x07\\xc2\\x9b1m' 15"}});
  Chat chat({}, settings(), bold_prompt, model);
  std::string shown = chat.say(demo_question);
  CHECK(shown.find(R"( *N+ \x1b]0;title\x07\x9b1m N layers on the GPU)") != std::string::npos);
  CHECK(shown.find("\x1b]") == std::string::npos);
  CHECK(shown.find('\x07') == std::string::npos);
  CHECK(shown.find("\xc2\x9b") == std::string::npos);
  // A file gets what the model said.
  Result result = run_program(chat_command({"--prompt", demo_question}, model));
  CHECK(result.output.find("*N+ \x1b]0;title\x07\xc2\x9b"
                           "1m N layers") == 0);
}

TEST_CASE("a character that is split over tokens is shown whole, or as U+FFFD once") {
  TemporaryDirectory files;
  std::string split =
      make_other_words(files, {{"' layers' 7", "b'\\xf0\\x9f' 2"}, {"' on' 3", "b'\\x98\\x80' 2"}});
  Chat chat({}, settings(), bold_prompt, split);
  CHECK(chat.say(demo_question).find(" *N+ keeps N\xf0\x9f\x98\x80 the GPU and") != std::string::npos);
  std::string broken = make_other_words(files, {{"' layers' 7", "b'\\xf0\\x9f' 2"}});
  Result result = run_program(chat_command({"--prompt", demo_question}, broken));
  CHECK(result.output.find("*N+ keeps N\xef\xbf\xbd on the GPU and") == 0);
}

TEST_CASE("a terminal is left as it was when the program is ended") {
  for (int signal : {SIGTERM, SIGHUP, SIGQUIT}) {
    Process chat(Process::Kind::terminal, chat_command(), settings());
    termios before = mode_of(chat.terminal());
    chat.read_until(bold_prompt);
    CHECK(!same_mode(mode_of(chat.terminal()), before));
    chat.signal(signal);
    CHECK(chat.wait() == 128 + signal);
    CHECK(same_mode(mode_of(chat.terminal()), before));
  }
}

TEST_CASE("a signal that was ignored before the program stays so, and the terminal is not touched") {
  Arguments ignoring = {"/bin/sh", "-c", "trap '' HUP QUIT; exec \"$0\" \"$@\""};
  for (const std::string& word : chat_command()) ignoring.push_back(word);
  Process chat(Process::Kind::terminal, ignoring, settings());
  chat.read_until(bold_prompt);
  termios editing = mode_of(chat.terminal());
  for (int signal : {SIGHUP, SIGQUIT}) chat.signal(signal);
  chat.write("/ex");
  chat.read_until("/ex");
  CHECK(same_mode(mode_of(chat.terminal()), editing));
  chat.write("it\r");
  CHECK(chat.wait() == 0);
}

TEST_CASE("another size of the terminal does not disturb the line") {
  Chat chat;
  chat.write("hel");
  chat.read_until("hel");
  winsize size = {10, 40, 0, 0};
  REQUIRE(ioctl(chat.terminal(), TIOCSWINSZ, &size) == 0);
  CHECK(chat.say("lo") == reply(hello, bold_label, size.ws_col));
  CHECK(chat.leave(ctrl_d) == 0);
}

TEST_CASE("Ctrl-Z stops the program, and the line is there again afterwards") {
  Environment environment = settings();
  environment.emplace_back("PS1", "shell> ");
  Process shell(Process::Kind::terminal, {"/bin/bash", "--norc", "--noediting", "-i"}, environment);
  shell.read_until("shell> ");
  std::string command;
  for (const std::string& word : chat_command()) command += "'" + word + "' ";
  shell.write(command + "\n");
  shell.read_until(bold_prompt);
  shell.write("hel");
  shell.read_until("hel");
  shell.write(ctrl_z);
  shell.read_until("Stopped");
  shell.read_until("shell> ");
  shell.write("stty -a\n");
  CHECK(shell.read_until("shell> ").find(" icanon ") != std::string::npos);
  shell.write("fg\n");
  shell.read_until(bold_prompt + "hel");
  shell.write("lo" + enter);
  shell.read_until(reply(hello));
  shell.read_until(bold_prompt);
  shell.write("/exit" + enter);
  shell.read_until("shell> ");
  shell.write("exit\n");
  shell.read_rest();
  CHECK(shell.wait() == 0);
}

}  // namespace rwkv::test
