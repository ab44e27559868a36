#include "model/text/prompt_template.h"

#include <doctest/doctest.h>

#include <string>

#include "model/text/think.h"
#include "test/model/text/demo.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {
namespace {

std::string chosen(const std::string& source, Version version = Version::v7, int64_t n_vocab = 65536) {
  return choose_prompt_template(source, version, n_vocab).name;
}

std::string prompt(const std::string& name, const std::string& message) {
  PromptTemplate form = find_prompt_template(name);
  return start_text(form, "") + message_text(form, message);
}

/// Thinking and answer of a reply that comes in these pieces, with a bar between.
std::string divided(Think think, const std::vector<std::string>& pieces) {
  ThinkSplitter splitter(think);
  std::string thinking, answer;
  auto show = [&](std::string_view text, ReplyPart part) {
    (part == ReplyPart::thinking ? thinking : answer) += text;
  };
  for (const std::string& piece : pieces) splitter.push(piece, show);
  splitter.finish(show);
  return thinking + "|" + answer + (splitter.thinking() ? " unfinished" : "");
}

}  // namespace

TEST_CASE("a message is cleaned as models know it") {
  CHECK(clean_message("a\r\nb") == "a\nb");
  CHECK(clean_message("a\n\n\n\nb\n\nc") == "a\nb\nc");
  CHECK(clean_message("a\r\n\r\n\r\nb") == "a\nb");
  CHECK(clean_message(" \t\r\n a b \v\f\n") == "a b");
  CHECK(clean_message("a\rb\r") == "a\rb");
  CHECK(clean_message("\xe3\x80\x80\xc2\xa0 a\xe2\x80\xa8") == "a");  // U+3000, U+00A0, U+2028
  CHECK(clean_message("").empty());
  CHECK(clean_message(" \n\r\n\t").empty());
  CHECK(clean_message(std::string("\0 a \0", 5)) == std::string("\0 a \0", 5));
  CHECK(clean_message(" \xff\xe4\xbd ") == "\xff\xe4\xbd");
}

TEST_CASE("the templates are the references'") {
  CHECK(prompt("world", "a") ==
        "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full "
        "details. Please feel free to ask any question and I will always answer it.\n\n"
        "User: a\n\nAssistant:");
  CHECK(prompt("g1", "a {bot}") == "User: a {bot}\n\nAssistant:");
  CHECK(start_text(find_prompt_template("g1"), "s {text}") == "System: s {text}\n\n");
  CHECK(prompt("qa", "a") == "Question: a\n\nAnswer:");
  CHECK(prompt("raven", "a").ends_with("\n\nBob: a\n\nAlice:"));
  CHECK(prompt("instruction", "a") == "Instruction: a\n\nResponse:");
  CHECK(prompt("raw", " a\n\nb ") == " a\n\nb ");
  CHECK(prompt("fim", "one <fill> three") ==
        "\u273fprefix\u273f\u273fsuffix\u273f three\u273fmiddle\u273fone ");
  CHECK(prompt("translate:English-Simplified Chinese", "a") == "English: a\n\nSimplified Chinese:");
  CHECK(find_prompt_template("g1").end_of_text_first);
  for (const PromptTemplate& form : prompt_templates()) CHECK_NOTHROW(check_options(form.sampling));

  CHECK_THROWS_AS(prompt("fim", "nothing to fill"), Error);
  CHECK_THROWS_AS(start_text(find_prompt_template("world"), "system"), Error);
  for (const char* name :
       {"", "World", "translate", "translate:English", "translate:-", "translate:a-", "\x1b"}) {
    CHECK_THROWS_AS(find_prompt_template(name), Error);
  }
}

TEST_CASE("the template follows from name, version and vocabulary") {
  CHECK(chosen("RWKV-x070-World-1.5B-v3-20250127-ctx4096.pth") == "world");
  CHECK(chosen("RWKV-x060-World-3B-v2.1-20240417-ctx4096.pth", Version::v6) == "world");
  CHECK(chosen("rwkv7-g0-7.2b-20250722-ctx4096.pth") == "g1");
  CHECK(chosen("rwkv7-g1a-0.1b-20250728-ctx4096.pth") == "g1");
  CHECK(chosen("rwkv7-g1k-13.3b-20260930-ctx25600.pth") == "g1");
  CHECK(chosen("RWKV7-G1-1.5B.pth") == "g1");
  CHECK(chosen("mine-20260101.pth") == "g1");
  CHECK(chosen("rwkv7-g10-1.5b.pth") == "world");
  CHECK(chosen("rwkv-x060-g1-like.pth", Version::v6) == "world");
  CHECK(chosen("RWKV-4-World-3B-v1-20230619-ctx4096.pth", Version::v4) == "qa");
  CHECK(chosen("RWKV-4-Raven-7B-v12-Eng49%-Chn49%-Jpn1%-Other1%-20230530-ctx8192.pth", Version::v4, 50277) ==
        "raven");
  CHECK(chosen("RWKV-4-Pile-14B-20230313-ctx8192-test1050.pth", Version::v4, 50277) == "raw");
  CHECK(chosen("guide-2.5m.pth", Version::v7, 1500) == "world");
  CHECK(chosen("") == "world");
}

TEST_CASE("the tokens of a prompt are those of its pieces") {
  // As the models are trained: no token of World joins the colon and an opener.
  MappedFile file = MappedFile::open(RWKV_WORLD_VOCABULARY);
  auto world = make_tokenizer(file.bytes(), file.path());
  for (Think think : {Think::fast, Think::on}) {
    std::string opener(think_opener(think));
    std::vector<int32_t> pieces = world->encode("User: a\n\nAssistant:");
    for (int32_t token : world->encode(opener)) pieces.push_back(token);
    CHECK(pieces == world->encode("User: a\n\nAssistant:" + opener));
  }
  CHECK(world->encode(" <think") == std::vector<int32_t>{295, 35762});
}

TEST_CASE("thinking is told from the answer, however the text comes") {
  CHECK(divided(Think::on, {">\nfirst</think>\nsecond"}) == "first|second");
  CHECK(divided(Think::on, {"></think>\n second"}) == "|second");
  CHECK(divided(Think::on, {"first < </thin </think> a </think> b"}) == "first < </thin |a </think> b");
  CHECK(divided(Think::on, {"> no end </thi"}) == "no end </thi| unfinished");
  CHECK(divided(Think::on, {}) == "| unfinished");
  CHECK(divided(Think::fast, {">\nanswer"}) == "|answer");
  CHECK(divided(Think::fast, {" answer > b"}) == "|answer > b");
  CHECK(divided(Think::fast, {}) == "|");
  CHECK(divided(Think::off, {" answer"}) == "| answer");
  CHECK(divided(Think::off, {" <think>a</think>b"}) == "a|b");
  CHECK(divided(Think::off, {" <thin"}) == "| <thin");
  CHECK(divided(Think::off, {" <thing>"}) == "| <thing>");
  const std::string text = "\n<think>\n1 < 2 </ a </think>\n\nso <think> it is</think>.";
  const std::string whole = divided(Think::off, {text});
  CHECK(whole == "1 < 2 </ a |so <think> it is</think>.");
  for (size_t a = 0; a <= text.size(); a++) {
    for (size_t b = a; b <= text.size(); b++) {
      CHECK(divided(Think::off, {text.substr(0, a), text.substr(a, b - a), text.substr(b)}) == whole);
    }
  }
}

TEST_CASE("ways to think have names") {
  for (const char* name : {"off", "fast", "on", "short", "long"}) CHECK(name_of(find_think(name)) == name);
  CHECK_THROWS_AS(find_think("deep"), Error);
  CHECK(think_wish(find_think("long")) == " (think a lot)");
}

}  // namespace rwkv::test
