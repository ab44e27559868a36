#include "model/text/stop.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "test/support.h"

TEST_SUITE_BEGIN("text");

namespace rwkv::test {
namespace {

using Strings = std::vector<std::string>;

/// The smallest position at which a stop text occurs.
std::optional<size_t> first_stop(std::string_view text, const Strings& stops) {
  std::optional<size_t> first;
  for (const std::string& stop : stops) {
    const size_t found = text.find(stop);
    if (found != std::string_view::npos && (!first || found < *first)) first = found;
  }
  return first;
}

std::string joined(const Strings& tokens, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += tokens[i];
  return text;
}

/// A caller as the header shows it. Its "state" is the list of what was fed.
struct Caller {
  explicit Caller(Strings stop_texts) : matcher(std::move(stop_texts)) {}

  /// Returns false when the reply has ended.
  bool push(const std::string& token) {
    const StopStep step = matcher.push(token);
    shown += step.shown;
    if (step.stopped) {
      rewind(step);
      return false;
    }
    if (matcher.pending_tokens() > 0) before.push_back(state);
    while (before.size() > matcher.pending_tokens()) before.pop_front();
    most_kept = std::max(most_kept, before.size());
    state.push_back(token);
    return true;
  }

  void finish() {
    const StopStep step = matcher.finish();
    shown += step.shown;
    if (step.stopped) rewind(step);
  }

  void rewind(const StopStep& step) {
    stopped = step;
    if (step.first_undone < before.size()) state = before[step.first_undone];
    REQUIRE(step.kept_tokens == state.size());
    if (!step.remainder.empty()) state.push_back(step.remainder);
  }

  StopMatcher matcher;
  std::deque<Strings> before;
  Strings state;
  std::string shown;
  std::optional<StopStep> stopped;
  size_t most_kept = 0;
};

/// All of a generation: the tokens until the matcher stops, or all of them.
Caller generate(const Strings& tokens, const Strings& stops) {
  Caller caller(stops);
  for (const std::string& token : tokens) {
    if (!caller.push(token)) return caller;
  }
  caller.finish();
  return caller;
}

std::string random_text(std::mt19937& random, std::string_view alphabet, size_t most) {
  std::string text(random() % (most + 1), ' ');
  for (char& c : text) c = alphabet[random() % alphabet.size()];
  return text;
}

Strings random_split(std::mt19937& random, std::string_view text) {
  Strings tokens;
  while (!text.empty()) {
    const size_t size = std::min<size_t>(1 + random() % 4, text.size());
    tokens.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return tokens;
}

Strings random_stops(std::mt19937& random, std::string_view alphabet) {
  Strings stops(random() % 4);
  for (std::string& stop : stops)
    stop = random_text(random, alphabet, 4) + alphabet[random() % alphabet.size()];
  return stops;
}

/// What must be shown after `text`, whatever follows: the shortest reply among all continuations.
size_t certain_length(const std::string& text, const Strings& stops, std::string_view alphabet,
                      size_t depth) {
  size_t least = std::min(text.size(), first_stop(text, stops).value_or(text.size()));
  if (depth == 0) return least;
  for (const char c : alphabet) least = std::min(least, certain_length(text + c, stops, alphabet, depth - 1));
  return least;
}

}  // namespace

TEST_CASE("stop: without stop texts every token is shown at once") {
  Caller caller({});
  CHECK(caller.push("a\n\n"));
  CHECK(caller.shown == "a\n\n");
  CHECK(caller.push("b"));
  CHECK(caller.shown == "a\n\nb");
  CHECK(caller.most_kept == 0);
  CHECK(caller.matcher.max_pending_tokens() == 0);
}

TEST_CASE("stop: a stop text that begins inside a token leaves the token's beginning in the reply") {
  const std::string full_stop = "\xe3\x80\x82";  // U+3002, which World joins with a newline into one token
  const Caller caller = generate({"\xe5\xa5\xbd", full_stop + "\n", "\n", "User"}, {"\n\n"});
  CHECK(caller.shown == "\xe5\xa5\xbd" + full_stop);
  REQUIRE(caller.stopped.has_value());
  CHECK(caller.stopped->kept_tokens == 1);
  CHECK(caller.stopped->first_undone == 0);
  CHECK(caller.stopped->remainder == full_stop);
  CHECK(caller.state == Strings{"\xe5\xa5\xbd", full_stop});
}

TEST_CASE("stop: what may still become a stop text is held back, and shown when it does not") {
  Caller caller({"\n\nUser"});
  CHECK(caller.push("one\n"));
  CHECK(caller.shown == "one");
  CHECK(caller.matcher.pending_tokens() == 1);
  CHECK(caller.push("\n"));
  CHECK(caller.push("U"));
  CHECK(caller.shown == "one");
  CHECK(caller.matcher.pending_tokens() == 3);
  CHECK(caller.push("se two"));
  CHECK(caller.shown == "one\n\nUse two");
  CHECK(caller.matcher.pending_tokens() == 0);
  CHECK(caller.push("\n\n"));
  CHECK_FALSE(caller.push("User"));
}

TEST_CASE("stop: the end of the reply shows what was held back, and the state keeps it") {
  const Caller caller = generate({"one", "\n", "\nUse"}, {"\n\nUser"});
  CHECK(caller.shown == "one\n\nUse");
  CHECK_FALSE(caller.stopped.has_value());
  CHECK(caller.state == Strings{"one", "\n", "\nUse"});
}

TEST_CASE("stop: of two stop texts that begin together the shorter stops first") {
  Caller caller({"\n\nUser", "\n\n"});
  CHECK(caller.push("x"));
  CHECK(caller.push("\n"));
  CHECK_FALSE(caller.push("\n"));
  CHECK(caller.stopped->stop == 1);
  CHECK(caller.shown == "x");
  CHECK(generate({"x\n\nUser"}, {"\n\nUser", "\n\n"}).stopped->stop == 1);
}

TEST_CASE("stop: a stop text inside a longer one waits for it, and counts when the longer one fails") {
  const Strings stops = {"abcd", "bc"};
  Caller waits(stops);
  CHECK(waits.push("xa"));
  CHECK(waits.push("bc"));
  CHECK(waits.shown == "x");
  CHECK_FALSE(waits.push("d"));
  CHECK(waits.shown == "x");
  CHECK(waits.stopped->stop == 0);
  CHECK(waits.state == Strings{"x"});

  const Caller fails = generate({"xa", "bc", "x"}, stops);
  CHECK(fails.shown == "xa");
  CHECK(fails.stopped->stop == 1);
  CHECK(fails.state == Strings{"xa"});

  const Caller ends = generate({"xa", "bc"}, stops);
  CHECK(ends.shown == "xa");
  CHECK(ends.stopped->stop == 1);
  CHECK(ends.state == Strings{"xa"});
}

TEST_CASE("stop: tokens without bytes, zero bytes and invalid UTF-8 are handled as bytes") {
  const std::string zero(1, '\0');
  const Caller caller = generate({"", "a" + zero, "", "\xff", "b"}, {zero + "\xff"});
  CHECK(caller.shown == "a");
  CHECK(caller.state == Strings{"", "a"});
  CHECK(generate({"", ""}, {"x"}).state == Strings{"", ""});
}

TEST_CASE("stop: an impossible stop text is refused") {
  CHECK(error_of([] { StopMatcher({"a", ""}); }) == "a stop text is empty: give at least one byte");
  CHECK(error_of([] { StopMatcher({std::string(257, 'x')}); }) ==
        "a stop text has 257 bytes: at most 256 are possible");
  CHECK(StopMatcher({std::string(256, 'x'), "y"}).max_pending_tokens() == 255);
}

TEST_CASE("stop: nothing can follow the end of a reply") {
  StopMatcher stopped({"x"});
  CHECK(stopped.push("x").stopped);
  CHECK(stopped.pending_tokens() == 0);
  CHECK(error_of([&] { stopped.push("y"); }) == "a token was pushed after the end of the reply");
  CHECK(error_of([&] { stopped.finish(); }) == "the reply was ended twice");
  StopMatcher finished({"xy"});
  finished.push("x");
  CHECK(finished.pending_tokens() == 1);
  CHECK(finished.finish().shown == "x");
  CHECK(finished.pending_tokens() == 0);
  CHECK(error_of([&] { finished.push("y"); }) == "a token was pushed after the end of the reply");
}

TEST_CASE("stop: random texts end before the first stop text, however they are divided into tokens") {
  std::mt19937 random(1);
  size_t stopped = 0;
  for (int round = 0; round < 30'000; ++round) {
    const std::string_view alphabet = round % 2 == 0 ? "ab" : "\nx";
    const Strings stops = random_stops(random, alphabet);
    const std::string text = random_text(random, alphabet, 12);
    const Strings tokens = random_split(random, text);
    const Caller caller = generate(tokens, stops);

    const std::optional<size_t> stop = first_stop(text, stops);
    const std::string reply = text.substr(0, stop.value_or(text.size()));
    CAPTURE(text);
    REQUIRE(caller.shown == reply);
    REQUIRE(caller.stopped.has_value() == stop.has_value());
    REQUIRE(joined(caller.state, caller.state.size()) == reply);
    REQUIRE(caller.most_kept <= caller.matcher.max_pending_tokens());
    if (!stop) continue;
    ++stopped;
    size_t kept = 0;
    while (joined(tokens, kept + 1).size() <= reply.size()) ++kept;
    REQUIRE(caller.stopped->kept_tokens == kept);
    REQUIRE(caller.stopped->remainder == reply.substr(joined(tokens, kept).size()));
    REQUIRE(text.substr(*stop).starts_with(stops[caller.stopped->stop]));
  }
  CHECK(stopped > 5'000);
}

TEST_CASE("stop: after each token all that no continuation can take back is shown, and no more") {
  std::mt19937 random(2);
  size_t waited = 0;
  for (int round = 0; round < 1'000; ++round) {
    const std::string_view alphabet = "ab";
    const Strings stops = random_stops(random, alphabet);
    const Strings tokens = random_split(random, random_text(random, alphabet, 8));
    Caller caller(stops);
    bool going = true;
    for (size_t i = 0; i < tokens.size() && going; ++i) {
      going = caller.push(tokens[i]);
      const std::string text = joined(tokens, i + 1);
      REQUIRE(caller.shown.size() == certain_length(text, stops, alphabet, 5));
      size_t pending = 0;
      while (joined(tokens, i + 1 - pending).size() > caller.shown.size()) ++pending;
      if (going) REQUIRE(caller.matcher.pending_tokens() == pending);
      waited += pending;
    }
  }
  CHECK(waited > 500);
}

}  // namespace rwkv::test

TEST_SUITE_END();
