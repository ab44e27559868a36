#include "model/text/conversation.h"

#include <fmt/format.h>

#include <utility>

#include "tokenizer/utf8.h"

namespace rwkv {
namespace {

constexpr std::string_view turn_end = "\n\n";

// The characters that Python's str.strip() removes.
bool is_blank(char32_t code) {
  return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 || code == 0xa0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

std::string_view strip(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    Utf8Char c = read_utf8(text.substr(at));
    if (c.kind != Utf8Char::Kind::whole || !is_blank(c.code)) {
      if (begin == text.size()) begin = at;
      end = at + c.length;
    }
    at += c.length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace

std::string first_exchange() {
  return fmt::format("User: {}{}Assistant: {}{}", first_message, turn_end, first_reply, turn_end);
}

std::string clean_message(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    if (text[i] == '\n' && clean.ends_with('\n')) continue;
    clean += text[i];
  }
  return std::string(strip(clean));
}

GenerateOptions conversation_options(int64_t max_tokens) { return {{std::string(turn_end)}, {}, max_tokens}; }

Conversation::Conversation(Executor& executor, const Tokenizer& tokenizer, Session start,
                           SamplerOptions sampling, GenerateOptions options)
    : executor_(&executor),
      tokenizer_(&tokenizer),
      generator_(executor, tokenizer, std::move(sampling), std::move(options)),
      start_(std::move(start)),
      session_(start_),
      before_message_{session_.state, {}},
      before_reply_{session_.state, {}} {}

int64_t Conversation::read(std::string_view message, const Reading& reading) {
  std::vector<int32_t> tokens =
      tokenizer_->encode(fmt::format("{}User: {}{}Assistant:", separator(), message, turn_end));
  auto total = static_cast<int64_t>(tokens.size());
  auto stop = [&](int64_t done) { return reading && reading(done, total); };
  set(before_message_);
  bool whole = false;
  try {
    whole = feed(*executor_, tokens, session_, stop) && !stop(total);
  } catch (...) {
    go_back(before_message_);
    throw;
  }
  if (!whole) go_back(before_message_);
  if (whole) set(before_reply_);
  return whole ? total : 0;
}

Reply Conversation::reply(const ShowText& show, const Interrupted& interrupted) {
  try {
    return generator_.generate(session_, show, interrupted);
  } catch (...) {
    if (before_message_.set) go_back(before_message_);
    forget_marks();
    throw;
  }
}

bool Conversation::undo_reply() {
  if (before_reply_.set) go_back(before_reply_);
  return before_reply_.set;
}

void Conversation::restart() {
  session_ = start_;
  forget_marks();
}

void Conversation::resume(Session session) {
  session_ = std::move(session);
  forget_marks();
}

void Conversation::set(Mark& mark) const {
  mark.state = session_.state;
  mark.logits = session_.logits;
  mark.tokens = session_.tokens.size();
  mark.set = true;
}

void Conversation::go_back(const Mark& mark) {
  session_.state = mark.state;
  session_.logits = mark.logits;
  session_.tokens.resize(mark.tokens);
}

// What ends the turn before: nothing at the beginning, and only what is missing of a blank line.
std::string_view Conversation::separator() const {
  std::string end;
  for (size_t i = session_.tokens.size(); i > 0 && end.size() < turn_end.size(); i--) {
    end.insert(0, tokenizer_->bytes(session_.tokens[i - 1]));
  }
  if (end.empty() || end.ends_with(turn_end)) return "";
  return end.ends_with('\n') ? turn_end.substr(1) : turn_end;
}

}  // namespace rwkv
