#include "model/text/conversation.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

GenerateOptions generating(const ConversationOptions& options) {
  return {options.form.stop_texts, {end_of_text}, options.max_tokens};
}

}  // namespace

Session start_session(Executor& executor, const Tokenizer& tokenizer, const PromptTemplate& form,
                      std::string_view system, const Reading& reading) {
  std::vector<int32_t> tokens;
  if (form.end_of_text_first) tokens.push_back(end_of_text);
  std::vector<int32_t> text = tokenizer.encode(start_text(form, system));
  tokens.insert(tokens.end(), text.begin(), text.end());
  Session session{State(executor.shared_model()), {}, {}};
  if (tokens.empty()) return session;
  auto total = static_cast<int64_t>(tokens.size());
  feed(executor, tokens, session, [&](int64_t done) { return reading && reading(done, total); });
  return session;
}

Conversation::Conversation(Executor& executor, const Tokenizer& tokenizer, Session start,
                           ConversationOptions options)
    : executor_(&executor),
      tokenizer_(&tokenizer),
      options_(std::move(options)),
      generator_(executor, tokenizer, options_.sampling, generating(options_)),
      session_(start),
      start_(start_place(std::move(start))) {
  talk_ = start_.talk;
}

std::string Conversation::prompt_of(std::string_view message) const {
  return fmt::format("{}{}{}", separator(), message_with_wish(message), think_opener(think()));
}

int64_t Conversation::read(std::string_view message, const Reading& reading) {
  std::string text = message_with_wish(message);
  Place old = here();
  before_.reset();
  if (!options_.form.dialogue) restart();
  Turn turn;
  turn.message = message;
  turn.before_message = options_.form.dialogue ? old.end : bookmark();
  turn.message_begin = session_.tokens.size();
  std::vector<int32_t> tokens = tokenizer_->encode(std::string(separator()) + text);
  auto total = static_cast<int64_t>(tokens.size());
  auto stop = [&](int64_t done) { return reading && reading(done, total); };
  bool whole = false;
  try {
    if (tokens.empty()) throw Error("there is nothing to read: the message is empty");
    whole = feed(*executor_, tokens, session_, stop) && !stop(total);
  } catch (...) {
    static_cast<void>(take(old));
    throw;
  }
  if (!whole) {
    static_cast<void>(take(old));
    return 0;
  }
  turn.before_reply = bookmark();
  turn.reply_begin = session_.tokens.size();
  talk_.turns.push_back(std::move(turn));
  forget_old_bookmarks();
  return total;
}

int64_t Conversation::edit(size_t index, std::string_view message, const Reading& reading) {
  Place old = here();
  int64_t tokens = 0;
  try {
    if (go_back_to(index, reading)) tokens = read(message, reading);
  } catch (...) {
    static_cast<void>(take(old));
    throw;
  }
  if (tokens == 0) static_cast<void>(take(old));
  if (tokens != 0) before_ = std::move(old);
  return tokens;
}

TurnReply Conversation::reply(const ShowReply& show, const Interrupted& interrupted) {
  if (talk_.turns.empty()) throw Error("there is no message to reply to");
  Turn& turn = talk_.turns.back();
  turn.reply.clear();
  ThinkSplitter parts(think());
  bool thought = false;
  auto keep = [&](std::string_view text, ReplyPart part) {
    if (part == ReplyPart::answer) turn.reply += text;
    if (part == ReplyPart::thinking) thought = true;
    show(text, part);
  };
  auto divide = [&](std::string_view text) {
    if (options_.form.thinks)
      parts.push(text, keep);
    else
      keep(text, ReplyPart::answer);
  };
  TurnReply result;
  try {
    std::string_view opener = think_opener(think());
    if (!opener.empty()) feed(*executor_, tokenizer_->encode(opener), session_);
    Reply reply = generator_.generate(session_, divide, interrupted);
    result = {reply.end, reply.tokens, options_.form.thinks && parts.thinking()};
    parts.finish(keep);
    if (!result.taken_back && (thought || !opener.empty())) replace_thinking(turn);
  } catch (...) {
    give_up();
    throw;
  }
  // Of two replies the one that says something is kept.
  if (before_ && result.end == ReplyEnd::interrupted && turn.reply.empty()) result.taken_back = true;
  if (result.taken_back) give_up();
  before_.reset();
  return result;
}

// There is no reply to the last message, or not another one.
void Conversation::give_up() {
  if (before_) {
    static_cast<void>(take(*before_));
  } else {
    static_cast<void>(go_back_to(talk_.turns.size() - 1));
  }
  before_.reset();
}

// As if the model had been asked without a wish and had answered without a block.
void Conversation::replace_thinking(Turn& turn) {
  if (think_wish(think()).empty()) {
    static_cast<void>(return_to(turn.reply_begin, turn.before_reply));
  } else {
    static_cast<void>(return_to(turn.message_begin, turn.before_message));
    feed(*executor_, tokenizer_->encode(std::string(separator()) + message_text(options_.form, turn.message)),
         session_);
    turn.before_reply = bookmark();
    turn.reply_begin = session_.tokens.size();
  }
  if (turn.reply.empty()) return;
  feed(*executor_, tokenizer_->encode((turn.reply.starts_with(' ') ? "" : " ") + turn.reply), session_);
}

bool Conversation::undo_reply(const Reading& reading) {
  if (talk_.turns.empty()) return false;
  Place old = here();
  Turn& turn = talk_.turns.back();
  if (!think_wish(think()).empty())
    return edit(talk_.turns.size() - 1, std::string(turn.message), reading) != 0;
  if (!return_to(turn.reply_begin, turn.before_reply, reading)) return false;
  if (!turn.before_reply) turn.before_reply = bookmark();
  before_ = std::move(old);
  return true;
}

void Conversation::begin(Session start, PromptTemplate form) {
  ConversationOptions changed = options_;
  changed.form = std::move(form);
  changed.from_nothing = true;
  generator_.set(changed.sampling, generating(changed));
  options_ = std::move(changed);
  start_ = start_place(std::move(start));
  others_.clear();
  branch_ = main_branch;
  restart();
}

void Conversation::set(const SamplerOptions& sampling, Think think, int64_t max_tokens) {
  ConversationOptions changed = options_;
  changed.sampling = sampling;
  changed.think = think;
  changed.max_tokens = max_tokens;
  generator_.set(changed.sampling, generating(changed));
  options_ = std::move(changed);
}

std::string Conversation::message_with_wish(std::string_view message) const {
  return message_text(options_.form, fmt::format("{}{}", message, think_wish(think())));
}

// What ends the turn before: nothing at the beginning, and only what is missing of a blank line.
std::string_view Conversation::separator() const {
  if (!options_.form.dialogue) return "";
  std::string end;
  const std::vector<int32_t>& tokens = session_.tokens;
  for (size_t i = tokens.size(); i > 0 && end.size() < turn_end.size(); i--) {
    end.insert(0, tokenizer_->bytes(tokens[i - 1]));
  }
  if (end.empty() || end.ends_with(turn_end)) return "";
  return end.ends_with('\n') ? turn_end.substr(1) : turn_end;
}

}  // namespace rwkv
