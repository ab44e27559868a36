#include "model/text/generate.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "test/allocations.h"
#include "test/model/text/demo.h"
#include "tokenizer/utf8.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {
namespace {

SamplerOptions lively(uint64_t seed) {
  SamplerOptions options;
  options.temperature = 1.5f;
  options.top_p = 0.98f;
  options.presence_penalty = 0.2f;
  options.frequency_penalty = 0.2f;
  options.seed = seed;
  return options;
}

struct Result {
  Reply reply;
  Shown shown;
  Session session;
};

Result generate(Demo& demo, Session session, const SamplerOptions& sampling, const GenerateOptions& options,
                const Interrupted& interrupted = {}) {
  Result result{{}, {}, std::move(session)};
  Generator generator(demo.executor, *demo.tokenizer, sampling, options);
  result.reply = generator.generate(result.session, result.shown.into(), interrupted);
  return result;
}

/// The session is exactly that of the prompt and the text shown: its tokens spell them, and reading these
/// tokens in one go gives the same state and logits.
void check_session(Demo& demo, const Session& prompt, const Result& result) {
  CHECK(demo.tokenizer->decode(result.session.tokens) ==
        demo.tokenizer->decode(prompt.tokens) + result.shown.text);
  CHECK(same_session(result.session, demo.session(result.session.tokens)));
}

}  // namespace

TEST_CASE("the same seed gives the same text whatever the chunk and the number of threads") {
  std::string expected, other;
  for (int threads : {1, 2}) {
    for (int64_t chunk : {1, 7, 256}) {
      Demo demo(threads, chunk);
      Result result = generate(demo, demo.asked("what is a strategy"), lively(5), {{}, {}, 60});
      if (expected.empty()) expected = result.shown.text;
      CHECK(result.shown.text == expected);
      other = generate(demo, demo.asked("what is a strategy"), lively(6), {{}, {}, 60}).shown.text;
    }
  }
  CHECK(expected.size() > 60);
  CHECK(other != expected);
}

TEST_CASE("a reply ends before the stop text, and so does the session") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  Result result = generate(demo, prompt, greedy(), {{"\n\n"}, {}, 200});
  CHECK(result.reply.end == ReplyEnd::stop_text);
  CHECK(result.shown.text == std::string(" ") + demo_answer);
  check_session(demo, prompt, result);
  // The greedy tokens are those that the text encodes to, so the text alone leads to the same place.
  Session read = demo.session("User: " + std::string(demo_question) + "\n\nAssistant: " + demo_answer);
  CHECK(same_session(result.session, read));
}

TEST_CASE("a stop text may begin and end inside tokens, over any number of them") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  std::string full = generate(demo, prompt, greedy(), {{"\n\n"}, {}, 200}).shown.text;
  size_t inside = 0;
  for (size_t begin = 0; begin < full.size(); begin += 7) {
    for (size_t length : {size_t{1}, size_t{2}, size_t{9}, size_t{30}}) {
      std::string stop = full.substr(begin, length);
      CAPTURE(stop);
      Result result = generate(demo, prompt, greedy(), {{"\n\n", stop}, {}, 200});
      CHECK(result.reply.end == ReplyEnd::stop_text);
      CHECK(result.shown.text == full.substr(0, full.find(stop)));
      check_session(demo, prompt, result);
      // Cut inside a token: the session's last token is not one that the model drew.
      std::vector<int32_t> drawn = demo.tokenizer->encode(full);
      size_t kept = result.session.tokens.size() - prompt.tokens.size();
      if (kept > 0 && result.session.tokens.back() != drawn[kept - 1]) inside++;
    }
  }
  CHECK(inside > 10);
}

TEST_CASE("what was held back for one stop text is still known for another") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  std::string full = generate(demo, prompt, greedy(), {{"\n\n"}, {}, 200}).shown.text;
  for (size_t begin = 0; begin + 30 < full.size(); begin += 5) {
    // The first is never completed, the second begins inside what it held back.
    std::string never = full.substr(begin, 14) + "#", stop = full.substr(begin + 6, 20);
    CAPTURE(stop);
    Result result = generate(demo, prompt, greedy(), {{never, stop}, {}, 200});
    CHECK(result.shown.text == full.substr(0, full.find(stop)));
    check_session(demo, prompt, result);
  }
}

TEST_CASE("what is shown is the text without stops, cut at the first of them") {
  Demo demo;
  Session prompt = demo.asked("how fast is it");
  std::mt19937 random(7);
  for (uint64_t seed = 0; seed < 12; seed++) {
    std::string full = generate(demo, prompt, lively(seed), {{}, {}, 50}).shown.text;
    std::vector<std::string> stops;
    for (int i = 0; i < 3; i++) stops.push_back(full.substr(random() % full.size(), 1 + random() % 12));
    stops.push_back(full.substr(full.size() / 2, 5) + "#");  // begins in the text, is never completed
    CAPTURE(full);
    CAPTURE(stops);
    size_t end = full.size();
    for (const std::string& stop : stops) end = std::min(end, full.find(stop));
    Result result = generate(demo, prompt, lively(seed), {stops, {}, 50});
    CHECK(result.shown.text == full.substr(0, end));
    check_session(demo, prompt, result);
  }
}

TEST_CASE("the limit counts tokens, and shows what was held back") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  std::vector<int32_t> drawn = demo.tokenizer->encode(std::string(" ") + demo_answer);
  for (int64_t limit : {0, 1, 2, 5, 11}) {
    std::vector<int32_t> first(drawn.begin(), drawn.begin() + limit);
    std::string text = demo.tokenizer->decode(first);
    // Begins with the last byte of the text, and is not what follows.
    std::string stop = text.empty() ? "#" : text.substr(text.size() - 1) + "####";
    Result result = generate(demo, prompt, greedy(), {{stop}, {}, limit});
    CHECK(result.reply.end == ReplyEnd::limit);
    CHECK(result.reply.tokens == limit);
    CHECK(result.shown.text == text);
    check_session(demo, prompt, result);
  }
}

TEST_CASE("a stop text that waits for a longer one is found at the limit") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  // "eps N" stands in "*N+ keeps N layers"; the longer stop begins before it and is never completed.
  Result whole = generate(demo, prompt, greedy(), {{}, {}, 6});
  REQUIRE(whole.shown.text.find("eps N") != std::string::npos);
  size_t end = whole.shown.text.find("eps N");
  std::string longer = whole.shown.text.substr(end - 2) + "####";
  Result result = generate(demo, prompt, greedy(), {{"eps N", longer}, {}, 6});
  CHECK(result.reply.end == ReplyEnd::stop_text);
  CHECK(result.shown.text == whole.shown.text.substr(0, end));
  check_session(demo, prompt, result);
}

TEST_CASE("a stop token ends the reply and is neither shown nor fed") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  std::vector<int32_t> drawn = demo.tokenizer->encode(std::string(" ") + demo_answer);
  int32_t stop = drawn[4];
  REQUIRE(std::count(drawn.begin(), drawn.begin() + 4, stop) == 0);
  Result result = generate(demo, prompt, greedy(), {{"\n\n"}, {stop}, 200});
  CHECK(result.reply.end == ReplyEnd::stop_token);
  CHECK(result.reply.tokens == 5);
  CHECK(result.shown.text == demo.tokenizer->decode(std::vector<int32_t>(drawn.begin(), drawn.begin() + 4)));
  check_session(demo, prompt, result);
}

TEST_CASE("ids without bytes are drawn only where they are stop tokens") {
  Demo demo;
  Session session = demo.asked("hello");
  session.logits[0] = 1e6f;  // token 0 has no bytes
  Result banned = generate(demo, session, greedy(), {{"\n\n"}, {}, 200});
  CHECK(banned.reply.end == ReplyEnd::stop_text);
  CHECK(banned.shown.text.starts_with(" Hello"));
  Result allowed = generate(demo, session, greedy(), {{"\n\n"}, {0}, 200});
  CHECK(allowed.reply.end == ReplyEnd::stop_token);
  CHECK(allowed.shown.text.empty());

  // Every id beyond a vocabulary that is smaller than the model's.
  std::string lines;
  for (int byte = 0; byte < 256; byte++) {
    constexpr char digits[] = "0123456789abcdef";
    lines += std::to_string(byte + 1) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1\n";
  }
  auto bytes_only = make_tokenizer(std::as_bytes(std::span(lines)), "bytes");
  session.logits.back() = 2e6f;
  Generator generator(demo.executor, *bytes_only, greedy(), {{}, {}, 20});
  Shown shown;
  CHECK(generator.generate(session, shown.into()).tokens == 20);
  for (auto token = session.tokens.end() - 20; token != session.tokens.end(); ++token) {
    CHECK(*token >= 1);
    CHECK(*token <= 256);
  }
}

TEST_CASE("an interrupted reply leaves the session at the text shown") {
  Demo demo;
  Session prompt = demo.asked(demo_question);
  for (int after : {0, 1, 4, 9}) {
    int asked = 0;
    // Everything is held back until the interruption: the stop text is the answer's beginning.
    for (const std::string& stop : {std::string("\n\n"), " " + std::string(demo_answer) + "####"}) {
      asked = 0;
      Result result = generate(demo, prompt, greedy(), {{stop}, {}, 200}, [&] { return asked++ == after; });
      CHECK(result.reply.end == ReplyEnd::interrupted);
      CHECK(result.reply.tokens == after);
      CHECK(static_cast<int>(result.session.tokens.size() - prompt.tokens.size()) == after);
      check_session(demo, prompt, result);
    }
  }
}

TEST_CASE("pieces are whole characters, and bytes that never become one are shown as U+FFFD once") {
  Demo demo;
  Session prompt = demo.asked("hello");
  // Only bytes of U+1F600 and a letter may be drawn, in any order; ids of bytes are those of World, byte + 1.
  SamplerOptions sampling = lively(3);
  sampling.temperature = 30;
  sampling.top_p = 0.99999f;
  sampling.frequency_penalty = 8;  // so that all of them come, again and again
  for (int32_t id = 0; id < demo.model->config().n_vocab; id++) {
    bool wanted = id == 0xf0 + 1 || id == 0x9f + 1 || id == 0x98 + 1 || id == 0x80 + 1 || id == 'a' + 1;
    if (!wanted) sampling.banned.push_back(id);
  }
  size_t split = 0, ends_incomplete = 0;
  for (sampling.seed = 0; sampling.seed < 60; sampling.seed++) {
    Result result = generate(demo, prompt, sampling, {{"aa"}, {}, 40});
    size_t drawn = result.session.tokens.size() - prompt.tokens.size();
    std::string bytes = demo.tokenizer->decode(std::span(result.session.tokens).last(drawn));
    std::string expected;
    Utf8Stream stream;
    stream.push(bytes, expected);
    size_t before_end = expected.size();
    stream.finish(expected);
    CHECK(result.shown.text == expected);
    if (expected.size() > before_end) ends_incomplete++;
    for (const std::string& piece : result.shown.pieces) {
      for (std::string_view rest = piece; !rest.empty();) {
        Utf8Char c = read_utf8(rest);
        REQUIRE(c.kind == Utf8Char::Kind::whole);
        if (c.code == 0x1f600) split++;
        rest.remove_prefix(c.length);
      }
    }
    CHECK(same_session(result.session, demo.session(result.session.tokens)));
  }
  CHECK(split > 0);
  CHECK(ends_incomplete > 0);
}

TEST_CASE("a generator makes one reply after another") {
  Demo demo;
  Session session = demo.asked("hello");
  SamplerOptions sampling = greedy();
  sampling.presence_penalty = 100;  // a reply that remembered the penalties of the last would differ
  Generator generator(demo.executor, *demo.tokenizer, sampling, {{"\n\n"}, {}, 20});
  Shown first, second;
  Session again = session;
  generator.generate(session, first.into());
  generator.generate(again, second.into());
  CHECK(first.text == second.text);
  CHECK(same_session(session, again));

  // What one reply held back is nothing to the next, here one that ends at its first token.
  Generator stopping(demo.executor, *demo.tokenizer, greedy(), {{" keeps N", " Hello"}, {}, 20});
  Session other = demo.asked(demo_question);
  stopping.generate(other, [](std::string_view) {});
  session = again = demo.asked("hello");
  CHECK(stopping.generate(session, [](std::string_view) {}).tokens == 1);
  CHECK(same_session(session, again));

  Generator random(demo.executor, *demo.tokenizer, lively(1), {{}, {}, 20});
  Shown one, two;
  session = again = demo.asked("hello");
  random.generate(session, one.into());
  random.generate(again, two.into());
  CHECK(one.text != two.text);  // random numbers go on
}

TEST_CASE("no token of a reply allocates a state") {
  Demo demo;
  Session prompt = demo.asked("hello");
  // Each token is held back: all tokens are the same, and stop texts begin with it.
  SamplerOptions sampling = greedy();
  sampling.presence_penalty = -100;
  std::string stop = generate(demo, prompt, sampling, {{}, {}, 12}).shown.text + "#";
  Generator generator(demo.executor, *demo.tokenizer, sampling, {{stop}, {}, 300});
  Session session = prompt;
  std::vector<uint64_t> counts;
  counts.reserve(1000);
  session.tokens.reserve(session.tokens.size() + 1000);
  generator.generate(
      session, [](std::string_view) {},
      [&] {
        counts.push_back(allocations());
        return false;
      });
  REQUIRE(counts.size() == 300);
  // A state has more buffers than a token may allocate strings.
  uint64_t in_steady_state = counts[299] - counts[99];
  CHECK(in_steady_state < 200 * static_cast<uint64_t>(demo.model->config().n_layer) / 2);
}

TEST_CASE("wrong options are refused") {
  Demo demo;
  auto make = [&](const GenerateOptions& options) {
    return error_of([&] { Generator(demo.executor, *demo.tokenizer, greedy(), options); });
  };
  CHECK(make({{}, {1500}, 10}) == "stop token 1500 is outside the model's vocabulary (0 to 1499)");
  CHECK(make({{}, {-1}, 10}) == "stop token -1 is outside the model's vocabulary (0 to 1499)");
  CHECK(make({{""}, {}, 10}).find("stop text is empty") != std::string::npos);
  CHECK(make({{}, {}, -1}) == "max_tokens must be at least 0, not -1");
  CHECK(make({{"a"}, {1499}, 10}).empty());
  SamplerOptions hot;
  hot.temperature = -1;
  CHECK(error_of([&] { Generator(demo.executor, *demo.tokenizer, hot, {}); }).find("temperature") == 0);

  Session empty{State(demo.model), {}, {}};
  Generator generator(demo.executor, *demo.tokenizer, greedy(), {});
  CHECK(error_of([&] { generator.generate(empty, [](std::string_view) {}); }) ==
        "there is nothing to continue: feed a text first");
}

}  // namespace rwkv::test
