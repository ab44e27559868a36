#include "model/text/conversation.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

#include "test/model/text/demo.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {
namespace {

const PromptTemplate world = find_prompt_template("world");
const std::string first_exchange = start_text(world, "");

ConversationOptions options_of(const SamplerOptions& sampling, int64_t max_tokens) {
  return {world, Think::off, sampling, max_tokens};
}

/// A conversation with the demo model.
struct Talk {
  Demo demo;
  Session start;
  Conversation conversation;

  explicit Talk(const SamplerOptions& sampling = greedy(), int64_t max_tokens = 200, int64_t chunk = 256)
      : Talk(options_of(sampling, max_tokens), chunk) {}

  explicit Talk(const ConversationOptions& options, int64_t chunk = 256)
      : demo(1, chunk),
        start(start_session(demo.executor, *demo.tokenizer, options.form, "")),
        conversation(demo.executor, *demo.tokenizer, start, options) {}

  std::string reply() {
    std::string shown;
    conversation.reply([&](std::string_view text, ReplyPart) { shown += text; });
    return shown;
  }
  std::string ask(const std::string& question) {
    REQUIRE(conversation.read(question) > 0);
    return reply();
  }
  /// All the text so far.
  [[nodiscard]] std::string text() const { return demo.tokenizer->decode(conversation.session().tokens); }
  /// The session is that of its tokens.
  void check() { CHECK(same_session(conversation.session(), demo.session(conversation.session().tokens))); }
};

}  // namespace

TEST_CASE("turns are joined by one empty line") {
  Talk talk;
  std::string first = talk.ask(demo_question);
  CHECK(first == std::string(" ") + demo_answer);
  CHECK(talk.text() == first_exchange + "User: " + demo_question + "\n\nAssistant:" + first);
  std::string so_far = talk.text();
  std::string second = talk.ask("what is 3 + 4?");
  CHECK(second == " 3 + 4 = 7.");
  CHECK(talk.text() == so_far + "\n\nUser: what is 3 + 4?\n\nAssistant:" + second);
  talk.check();
}

TEST_CASE("a reply that was cut is followed by what is missing of the empty line") {
  // The first reply ends at the limit, with a newline that might have become the end.
  Talk talk;
  Session session = talk.demo.session("User: a\n\nAssistant: one\n");
  talk.conversation.resume(session);
  CHECK(talk.conversation.read("b") > 0);
  CHECK(talk.text() == "User: a\n\nAssistant: one\n\nUser: b\n\nAssistant:");

  talk.conversation.resume(talk.demo.session("User: a\n\nAssistant: one"));
  CHECK(talk.conversation.read("b") > 0);
  CHECK(talk.text() == "User: a\n\nAssistant: one\n\nUser: b\n\nAssistant:");

  talk.conversation.resume({State(talk.demo.model), {}, {}});
  CHECK(talk.conversation.read("b") > 0);
  CHECK(talk.text() == "User: b\n\nAssistant:");

  talk.conversation.resume(talk.demo.session(std::vector<int32_t>{0}));
  CHECK(talk.conversation.read("b") > 0);
  CHECK(talk.text() == "User: b\n\nAssistant:");
}

TEST_CASE("an interrupted message leaves the conversation as it was") {
  Talk talk(greedy(), 200, 4);
  talk.ask("hello");
  Session before = talk.conversation.session();
  for (int64_t stop_at : {4, 8, 12}) {
    int64_t most = 0;
    CHECK(talk.conversation.read(demo_question, [&](int64_t done, int64_t total) {
      CHECK(done <= total);
      most = done;
      return done >= stop_at;
    }) == 0);
    CHECK(most == stop_at);
    CHECK(same_session(talk.conversation.session(), before));
  }
  // After the last chunk too, when all has been read.
  CHECK(talk.conversation.read("hello", [](int64_t done, int64_t total) { return done == total; }) == 0);
  CHECK(same_session(talk.conversation.session(), before));
  CHECK(talk.ask(demo_question) == std::string(" ") + demo_answer);
}

TEST_CASE("an interrupted reply is kept as far as it was shown") {
  Talk talk;
  REQUIRE(talk.conversation.read(demo_question) > 0);
  Shown shown;
  auto show = shown.into();
  int asked = 0;
  TurnReply reply = talk.conversation.reply([&](std::string_view text, ReplyPart) { show(text); },
                                            [&] { return ++asked > 5; });
  CHECK(reply.end == ReplyEnd::interrupted);
  CHECK(shown.text.starts_with(" *N+ keeps"));
  CHECK(talk.text() == first_exchange + "User: " + demo_question + "\n\nAssistant:" + shown.text);
  talk.check();
  CHECK(talk.ask("what is 3 + 4?") == " 3 + 4 = 7.");
}

TEST_CASE("a reply can be drawn again") {
  Talk talk;
  CHECK(!talk.conversation.undo_reply());
  std::string first = talk.ask(demo_question);
  Session after = talk.conversation.session();
  for (int i = 0; i < 2; i++) {
    CHECK(talk.conversation.undo_reply());
    CHECK(talk.text() == first_exchange + "User: " + demo_question + "\n\nAssistant:");
    CHECK(talk.reply() == first);
    CHECK(same_session(talk.conversation.session(), after));
  }
  // A message that was taken back does not change which reply that is.
  CHECK(talk.conversation.read("x", [](int64_t, int64_t) { return true; }) == 0);
  CHECK(talk.conversation.undo_reply());
  CHECK(talk.reply() == first);

  SamplerOptions sampling;
  sampling.temperature = 30;
  sampling.top_p = 0.9999f;
  sampling.seed = 1;
  Talk random(sampling, 20);
  std::string one = random.ask("hello");
  CHECK(random.conversation.undo_reply());
  CHECK(random.reply() != one);
}

TEST_CASE("restart and resume") {
  Talk talk;
  std::string first = talk.ask(demo_question);
  Session saved = talk.conversation.session();
  std::string second = talk.ask("how do i build it");
  talk.conversation.restart();
  CHECK(same_session(talk.conversation.session(), talk.start));
  CHECK(!talk.conversation.undo_reply());
  CHECK(talk.ask(demo_question) == first);

  TemporaryDirectory directory;
  save_session(directory / "saved.state", saved);
  talk.conversation.resume(load_session(directory / "saved.state", talk.demo.model));
  CHECK(same_session(talk.conversation.session(), saved));
  CHECK(!talk.conversation.undo_reply());
  CHECK(talk.ask("how do i build it") == second);
}

TEST_CASE("whatever fails in a reply, the conversation is as before the message") {
  Talk talk;
  talk.ask("hello");
  Session before = talk.conversation.session();
  REQUIRE(talk.conversation.read(demo_question) > 0);
  int pieces = 0;
  auto fail = [&](std::string_view, ReplyPart) {
    if (++pieces == 4) throw std::runtime_error("full");
  };
  CHECK_THROWS_AS(talk.conversation.reply(fail), std::runtime_error);
  CHECK(same_session(talk.conversation.session(), before));
  CHECK(talk.conversation.turns().size() == 1);
  CHECK(talk.ask(demo_question) == std::string(" ") + demo_answer);
}

}  // namespace rwkv::test
