// Going back in a conversation: bookmarks, branches, notes, and thinking that is taken out.
#include <doctest/doctest.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "model/text/conversation.h"
#include "test/model/text/demo.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {
namespace {

const PromptTemplate world = find_prompt_template("world");
constexpr const char* sum = "what is 3 + 4?";

ConversationOptions greedy_world() { return {world, Think::off, greedy(), 60}; }

struct Talk {
  Demo demo;
  Conversation conversation;

  explicit Talk(const ConversationOptions& options = greedy_world())
      : conversation(demo.executor, *demo.tokenizer,
                     start_session(demo.executor, *demo.tokenizer, options.form, ""), options) {}

  std::string ask(const std::string& message) {
    REQUIRE(conversation.read(message) > 0);
    return reply();
  }
  std::string reply() {
    std::string shown;
    conversation.reply([&](std::string_view text, ReplyPart) { shown += text; });
    return shown;
  }
  /// What was read and said, in one line.
  [[nodiscard]] std::string messages() const {
    std::string text;
    for (const Turn& turn : conversation.turns()) text += turn.message + "|";
    return text;
  }
  /// The same session as that of another conversation that heard only these messages.
  void check_as_if(const std::vector<std::string>& messages) {
    Talk other;
    for (const std::string& message : messages) other.ask(message);
    CHECK(conversation.session().tokens == other.conversation.session().tokens);
    CHECK(same_session(conversation.session(), other.conversation.session()));
  }
};

// The tokenizer of the demo, but for the bytes of some tokens, and texts that have no tokens.
class OtherBytes final : public Tokenizer {
 public:
  OtherBytes(const Tokenizer& base, std::map<int32_t, std::string> bytes, std::string unknown)
      : base_(&base), bytes_(std::move(bytes)), unknown_(std::move(unknown)) {}
  using Tokenizer::encode;
  [[nodiscard]] TokenizerKind kind() const override { return base_->kind(); }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    if (text != unknown_) base_->encode(text, ids);
  }
  [[nodiscard]] std::string_view bytes(int32_t id) const override {
    auto found = bytes_.find(id);
    return found == bytes_.end() ? base_->bytes(id) : found->second;
  }
  [[nodiscard]] int32_t size() const override { return base_->size(); }

 private:
  const Tokenizer* base_;
  std::map<int32_t, std::string> bytes_;
  std::string unknown_;
};

ConversationNotes noted(const Turn& turn) {
  ConversationNotes notes;
  notes.form = "world";
  notes.turns = {turn};
  return notes;
}

}  // namespace

TEST_CASE("going back to any message is as if what followed had not been said") {
  Talk talk;
  for (const char* message : {"hello", sum, demo_question}) talk.ask(message);
  talk.check_as_if({"hello", sum, demo_question});
  talk.conversation.go_back_to(2);
  talk.check_as_if({"hello", sum});
  CHECK(talk.ask("hello") != "");
  talk.conversation.go_back_to(1);
  talk.check_as_if({"hello"});
  CHECK(talk.ask(demo_question) == std::string(" ") + demo_answer);
  talk.check_as_if({"hello", demo_question});
  CHECK(talk.messages() == "hello|" + std::string(demo_question) + "|");
  talk.conversation.go_back_to(0);
  talk.check_as_if({});
  CHECK(talk.conversation.turns().empty());
}

TEST_CASE("places that were forgotten are read again") {
  ConversationOptions options = greedy_world();
  options.bookmark_bytes = 0;
  Talk talk(options);
  for (const char* message : {"hello", sum, demo_question, "hello"}) talk.ask(message);
  const auto& turns = talk.conversation.turns();
  for (size_t i = 0; i < turns.size(); i++) {
    bool last = i + 1 == turns.size();
    CHECK(static_cast<bool>(turns[i].before_message) == last);
    CHECK(static_cast<bool>(turns[i].before_reply) == last);
  }
  talk.conversation.go_back_to(2);
  talk.check_as_if({"hello", sum});
  CHECK(talk.conversation.undo_reply());
  CHECK(talk.reply() == " 3 + 4 = 7.");
  talk.check_as_if({"hello", sum});
}

TEST_CASE("the oldest places are forgotten first, as many as must be") {
  Talk measure;
  measure.ask("hello");
  const Session& session = measure.conversation.session();
  uint64_t place = session.state.bytes() + session.logits.size() * 4;
  ConversationOptions options = greedy_world();
  options.bookmark_bytes = 3 * place;
  Talk talk(options);
  for (int i = 0; i < 4; i++) talk.ask("hello");
  const auto& turns = talk.conversation.turns();
  CHECK(!turns[0].before_message);
  CHECK(!turns[0].before_reply);
  CHECK(!turns[1].before_message);
  CHECK(turns[1].before_reply);
  CHECK(turns[2].before_message);
  CHECK(turns[3].before_reply);
}

TEST_CASE("branches go their own ways") {
  Talk talk;
  talk.ask("hello");
  talk.conversation.start_branch("other");
  talk.ask(sum);
  CHECK_THROWS_AS(talk.conversation.start_branch("main"), Error);
  CHECK_THROWS_AS(talk.conversation.start_branch("other"), Error);
  CHECK_THROWS_AS(talk.conversation.switch_to("third"), Error);
  talk.conversation.switch_to("main");
  talk.check_as_if({"hello"});
  talk.ask(demo_question);
  CHECK(talk.conversation.branches() == std::vector<std::string>{"main", "other"});
  talk.conversation.switch_to("other");
  CHECK(talk.conversation.branch() == "other");
  talk.check_as_if({"hello", sum});
  talk.conversation.switch_to("other");
  talk.conversation.go_back_to(0);
  talk.conversation.switch_to("main");
  talk.check_as_if({"hello", demo_question});
}

TEST_CASE("a conversation that was saved knows its messages") {
  TemporaryDirectory files;
  std::string file = files / "saved.state";
  Talk first;
  first.ask("hello");
  std::string reply = first.ask(sum);
  first.conversation.save(file);

  Talk second;
  second.conversation.resume(load_session(file, second.demo.model));
  CHECK(second.messages() == first.messages());
  CHECK(second.conversation.turns()[1].reply == reply);
  second.check_as_if({"hello", sum});
  CHECK(second.conversation.undo_reply());
  CHECK(second.reply() == reply);
  second.conversation.go_back_to(1);
  second.check_as_if({"hello"});
  CHECK(read_notes(load_session(file, second.demo.model)).form == "world");

  // What began from a trained state cannot be read again, but what followed can be undone.
  ConversationOptions options = greedy_world();
  options.from_nothing = false;
  Conversation trained(first.demo.executor, *first.demo.tokenizer, first.demo.session("User: a\n"), options);
  REQUIRE(trained.read("hello") > 0);
  trained.save(file);
  trained.resume(load_session(file, first.demo.model));
  REQUIRE(trained.read(sum) > 0);
  trained.go_back_to(1);
  CHECK_THROWS_WITH_AS(
      trained.go_back_to(0),
      "that place of the conversation is lost: it was loaded, and began from a trained state", Error);
}

TEST_CASE("branches are saved with a conversation, and read again when they are wanted") {
  TemporaryDirectory files;
  Talk first;
  first.ask("hello");
  first.conversation.start_branch("b");
  first.ask(sum);
  first.conversation.start_branch("c");
  first.conversation.go_back_to(0);
  first.conversation.save(files / "saved");
  Talk second;
  second.conversation.resume(load_session(files / "saved", second.demo.model));
  CHECK(second.conversation.branches() == std::vector<std::string>{"b", "c", "main"});
  CHECK(second.conversation.branch() == "c");
  CHECK(!second.conversation.switch_to("b", [](int64_t, int64_t) { return true; }));
  second.check_as_if({});
  CHECK(second.conversation.branch() == "c");
  CHECK(second.conversation.switch_to("b"));
  second.check_as_if({"hello", sum});
  CHECK(second.messages() == "hello|" + std::string(sum) + "|");
  CHECK(second.conversation.switch_to("main"));
  second.check_as_if({"hello"});
  CHECK(second.conversation.switch_to("c"));
  second.check_as_if({});
}

TEST_CASE("a conversation that goes on still begins where others do") {
  TemporaryDirectory files;
  Talk first;
  first.ask("hello");
  first.conversation.save(files / "saved");
  Talk second;
  second.conversation.resume(load_session(files / "saved", second.demo.model));
  CHECK(same_session(second.conversation.start(), first.conversation.start()));
  second.conversation.restart();
  second.check_as_if({});
  // A form without dialogue begins there too.
  ConversationOptions options = greedy_world();
  options.form.dialogue = false;
  Talk single(options);
  single.conversation.resume(load_session(files / "saved", single.demo.model));
  single.ask(sum);
  single.check_as_if({sum});
  // What has no notes may have begun from anything.
  Session bare = load_session(files / "saved", second.demo.model);
  bare.notes.clear();
  second.conversation.resume(std::move(bare));
  second.ask(sum);
  second.conversation.save(files / "again");
  CHECK(!read_notes(load_session(files / "again", second.demo.model)).from_nothing);
}

TEST_CASE("a message that is not read after all changes nothing, whatever it was to replace") {
  auto at_once = [](int64_t, int64_t) { return true; };
  Talk talk;
  for (const char* message : {"hello", sum}) talk.ask(message);
  CHECK(talk.conversation.edit(0, demo_question, at_once) == 0);
  talk.check_as_if({"hello", sum});
  CHECK(talk.messages() == "hello|" + std::string(sum) + "|");
  CHECK(talk.conversation.edit(0, demo_question) > 0);
  int pieces = 0;
  auto fail = [&](std::string_view, ReplyPart) {
    if (++pieces == 3) throw std::runtime_error("full");
  };
  CHECK_THROWS_AS(talk.conversation.reply(fail), std::runtime_error);
  talk.check_as_if({"hello", sum});
  CHECK(talk.conversation.edit(1, demo_question) > 0);
  talk.reply();
  talk.check_as_if({"hello", demo_question});

  // Another reply that is interrupted before it says anything leaves the one there was.
  std::string said = talk.conversation.turns()[1].reply;
  CHECK(talk.conversation.undo_reply());
  CHECK(talk.conversation.reply([](std::string_view, ReplyPart) {}, [] { return true; }).taken_back);
  CHECK(talk.conversation.turns()[1].reply == said);
  talk.check_as_if({"hello", demo_question});

  ConversationOptions options = greedy_world();
  options.form = find_prompt_template("fim");
  Talk fim(options);
  fim.ask("a <fill> b");
  CHECK_THROWS_AS(fim.conversation.edit(0, "no mark"), Error);
  CHECK_THROWS_AS(fim.conversation.read("no mark"), Error);
  CHECK(fim.conversation.read("a <fill> c", at_once) == 0);
  CHECK(fim.messages() == "a <fill> b|");
}

TEST_CASE("places that are read again can be interrupted") {
  ConversationOptions options = greedy_world();
  options.bookmark_bytes = 0;
  Talk talk(options);
  for (const char* message : {"hello", sum, "hello"}) talk.ask(message);
  auto at_once = [](int64_t, int64_t) { return true; };
  CHECK(!talk.conversation.go_back_to(1, at_once));
  talk.check_as_if({"hello", sum, "hello"});
  CHECK(talk.conversation.go_back_to(1));
  CHECK(!talk.conversation.undo_reply(at_once));
  talk.check_as_if({"hello"});
}

TEST_CASE("notes that are damaged are refused") {
  Demo demo;
  Session session = demo.session("User: a\n\nAssistant: b");
  Turn turn;
  turn.message = "a";
  turn.message_begin = 0;
  turn.reply_begin = 3;
  session.notes = write_notes(noted(turn));
  CHECK(read_notes(session).turns[0].message == "a");
  turn.reply_begin = session.tokens.size() + 1;
  for (const std::string& notes :
       {std::string("{"), std::string("[]"), std::string("{\"template\": 1}"),
        std::string(R"({"template": "world", "from_nothing": true, "turns": [{"message": "a"}]})"),
        std::string(R"({"template": "world", "from_nothing": true, "turns": [{"message": "a", "reply": "b",
                        "message_begin": -1, "reply_begin": 2}]})"),
        write_notes(noted(turn)), write_notes(noted(Turn{"a", "b", 2, 1}))}) {
    CAPTURE(notes);
    session.notes = notes;
    CHECK_THROWS_AS(read_notes(session), Error);
  }
}

TEST_CASE("a form without dialogue begins anew with each message") {
  ConversationOptions options = greedy_world();
  options.form.dialogue = false;
  Talk talk(options);
  std::string answer = talk.ask(sum);
  size_t tokens = talk.conversation.session().tokens.size();
  CHECK(talk.ask(sum) == answer);
  CHECK(talk.conversation.session().tokens.size() == tokens);
  CHECK(talk.conversation.turns().size() == 1);
}

TEST_CASE("thinking is told from the answer, and is taken out of the session") {
  // The answer to the sum with other words in it: thinking up to its fourth token.
  Demo demo;
  Session asked = demo.session(start_text(world, "") + "User: " + sum + "\n\nAssistant:");
  Session plain = asked;
  Generator generator(demo.executor, *demo.tokenizer, greedy(), {{"\n\n"}, {}, 60});
  generator.generate(plain, [](std::string_view) {});
  std::vector<int32_t> reply(plain.tokens.begin() + static_cast<std::ptrdiff_t>(asked.tokens.size()),
                             plain.tokens.end());
  REQUIRE(reply.size() > 5);

  for (Think think : {Think::off, Think::on, Think::fast}) {
    CAPTURE(name_of(think));
    std::map<int32_t, std::string> words = {{reply[0], think == Think::off ? " <think>" : ">"}};
    if (think == Think::fast) words[reply[1]] = "\n";
    if (think != Think::fast) words[reply[1]] = "hm </th";
    if (think != Think::fast) words[reply[2]] = "ink>\n";
    REQUIRE(words.size() == (think == Think::fast ? 2 : 3));
    OtherBytes tokenizer(*demo.tokenizer, words, std::string(think_opener(think)));
    ConversationOptions options = greedy_world();
    options.form.thinks = true;
    options.think = think;
    Conversation conversation(demo.executor, tokenizer, demo.session(start_text(world, "")), options);
    std::string thought, answer;
    auto show = [&](std::string_view text, ReplyPart part) {
      (part == ReplyPart::thinking ? thought : answer) += text;
    };
    REQUIRE(conversation.read(sum) > 0);
    conversation.reply(show);
    CHECK(thought == (think == Think::fast ? "" : "hm "));
    std::string expected;
    for (size_t i = think == Think::fast ? 2 : 3; i < reply.size(); i++)
      expected += tokenizer.bytes(reply[i]);
    expected.erase(0, expected.find_first_not_of(' '));
    CHECK(answer == expected);
    CHECK(conversation.turns()[0].reply == answer);
    CHECK(same_session(conversation.session(),
                       demo.session(start_text(world, "") + "User: " + sum + "\n\nAssistant: " + answer)));
    // Another reply begins with thinking again.
    answer.clear();
    CHECK(conversation.undo_reply());
    conversation.reply(show);
    CHECK(answer == expected);
    // Ended within the thinking there is no other reply, and for a new message none.
    if (think == Think::fast) continue;
    Session before = conversation.session();
    conversation.set(greedy(), think, 2);
    CHECK(conversation.undo_reply());
    CHECK(conversation.reply(show).taken_back);
    CHECK(conversation.turns()[0].reply == expected);
    CHECK(same_session(conversation.session(), before));
    conversation.restart();
    REQUIRE(conversation.read(sum) > 0);
    CHECK(conversation.reply(show).taken_back);
    CHECK(conversation.turns().empty());
    CHECK(same_session(conversation.session(), conversation.start()));
  }
}

}  // namespace rwkv::test
