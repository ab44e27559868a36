#include "model/text/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

GenerateOptions generating(const ConversationOptions& options) {
  return {options.form.stop_texts, {end_of_text}, options.max_tokens};
}

std::shared_ptr<const Bookmark> bookmark_of(const Session& session) {
  return std::make_shared<const Bookmark>(Bookmark{session.state, session.logits, session.tokens.size()});
}

uint64_t bytes_of(const std::shared_ptr<const Bookmark>& place) {
  return place ? place->state.bytes() + place->logits.size() * sizeof(float) : 0;
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
      start_(place_of(std::move(start))),
      now_(start_) {
  if (start_.session.notes.empty()) start_.from_nothing = now_.from_nothing = options_.from_nothing;
}

std::string Conversation::prompt_of(std::string_view message) const {
  return fmt::format("{}{}{}", separator(), message_with_wish(message), think_opener(think()));
}

int64_t Conversation::read(std::string_view message, const Reading& reading) {
  std::string text = message_with_wish(message);
  if (!options_.form.dialogue) now_ = start_;
  Turn turn;
  turn.message = message;
  turn.before_message = bookmark();
  turn.message_begin = now_.session.tokens.size();
  std::vector<int32_t> tokens = tokenizer_->encode(std::string(separator()) + text);
  if (tokens.empty()) throw Error("there is nothing to read: the message is empty");
  auto total = static_cast<int64_t>(tokens.size());
  auto stop = [&](int64_t done) { return reading && reading(done, total); };
  bool whole = false;
  try {
    whole = feed(*executor_, tokens, now_.session, stop) && !stop(total);
  } catch (...) {
    return_to(turn.message_begin, turn.before_message);
    throw;
  }
  if (!whole) {
    return_to(turn.message_begin, turn.before_message);
    return 0;
  }
  turn.before_reply = bookmark();
  turn.reply_begin = now_.session.tokens.size();
  now_.turns.push_back(std::move(turn));
  forget_old_bookmarks();
  return total;
}

TurnReply Conversation::reply(const ShowReply& show, const Interrupted& interrupted) {
  if (now_.turns.empty()) throw Error("there is no message to reply to");
  Turn& turn = now_.turns.back();
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
    if (!opener.empty()) feed(*executor_, tokenizer_->encode(opener), now_.session);
    Reply reply = generator_.generate(now_.session, divide, interrupted);
    result = {reply.end, reply.tokens, options_.form.thinks && parts.thinking()};
    parts.finish(keep);
    if (!result.taken_back && (thought || !opener.empty())) replace_thinking(turn);
  } catch (...) {
    go_back_to(now_.turns.size() - 1);
    throw;
  }
  if (result.taken_back) go_back_to(now_.turns.size() - 1);
  return result;
}

// As if the model had answered without a block.
void Conversation::replace_thinking(const Turn& turn) {
  return_to(turn.reply_begin, turn.before_reply);
  std::string answer = (turn.reply.starts_with(' ') ? "" : " ") + turn.reply;
  feed(*executor_, tokenizer_->encode(answer), now_.session);
}

bool Conversation::undo_reply() {
  if (now_.turns.empty()) return false;
  Turn& turn = now_.turns.back();
  return_to(turn.reply_begin, turn.before_reply);
  if (!turn.before_reply) turn.before_reply = bookmark();
  return true;
}

void Conversation::go_back_to(size_t index) {
  const Turn& turn = now_.turns.at(index);
  return_to(turn.message_begin, turn.before_message);
  now_.turns.resize(index);
}

void Conversation::restart() { now_ = start_; }

void Conversation::resume(Session session) { now_ = place_of(std::move(session)); }

Conversation::Place Conversation::place_of(Session session) const {
  ConversationNotes notes = read_notes(session);
  Place place{std::move(session), std::move(notes.turns), {}, notes.from_nothing};
  bool again = notes.from_nothing && !place.turns.empty();
  place.origin = bookmark_of(again ? Session{State(executor_->shared_model()), {}, {}} : place.session);
  return place;
}

void Conversation::begin(Session start, PromptTemplate form) {
  ConversationOptions changed = options_;
  changed.form = std::move(form);
  Place place = place_of(std::move(start));
  generator_.set(changed.sampling, generating(changed));
  options_ = std::move(changed);
  start_ = now_ = std::move(place);
  start_.from_nothing = now_.from_nothing = true;
  others_.clear();
  branch_ = main_branch;
}

void Conversation::start_branch(const std::string& name) {
  if (name == branch_ || others_.contains(name))
    throw Error(fmt::format("there is a branch '{}' already", printable(name)));
  others_.emplace(branch_, now_);
  branch_ = name;
}

void Conversation::switch_to(const std::string& name) {
  if (name == branch_) return;
  auto found = others_.find(name);
  if (found == others_.end()) throw Error(fmt::format("there is no branch '{}'", printable(name)));
  Place wanted = std::move(found->second);
  others_.erase(found);
  others_.emplace(branch_, std::move(now_));
  now_ = std::move(wanted);
  branch_ = name;
}

std::vector<std::string> Conversation::branches() const {
  std::vector<std::string> names = {branch_};
  for (const auto& [name, place] : others_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

void Conversation::set(const SamplerOptions& sampling, Think think, int64_t max_tokens) {
  ConversationOptions changed = options_;
  changed.sampling = sampling;
  changed.think = think;
  changed.max_tokens = max_tokens;
  generator_.set(changed.sampling, generating(changed));
  options_ = std::move(changed);
}

void Conversation::save(const std::string& path) const {
  Session session = now_.session;
  session.notes = write_notes({options_.form.name, now_.from_nothing, now_.turns});
  save_session(path, session);
}

std::shared_ptr<const Bookmark> Conversation::bookmark() const { return bookmark_of(now_.session); }

// To where the session had so many tokens: a copy of `place`, or the tokens from the nearest place before,
// read again.
void Conversation::return_to(size_t tokens, const std::shared_ptr<const Bookmark>& place) {
  const Bookmark* nearest = place ? place.get() : nearest_before(tokens);
  if (nearest == nullptr) {
    throw Error("that place of the conversation is lost: it was loaded, and began from a trained state");
  }
  std::vector<int32_t> missing(now_.session.tokens.begin() + static_cast<std::ptrdiff_t>(nearest->tokens),
                               now_.session.tokens.begin() + static_cast<std::ptrdiff_t>(tokens));
  now_.session.state = nearest->state;
  now_.session.logits = nearest->logits;
  now_.session.tokens.resize(nearest->tokens);
  if (!missing.empty()) feed(*executor_, missing, now_.session);
}

const Bookmark* Conversation::nearest_before(size_t tokens) const {
  const Bookmark* nearest = nullptr;
  auto consider = [&](const std::shared_ptr<const Bookmark>& place) {
    bool better = place && place->tokens <= tokens && (nearest == nullptr || place->tokens > nearest->tokens);
    if (better) nearest = place.get();
  };
  consider(now_.origin);
  for (const Turn& turn : now_.turns) {
    consider(turn.before_message);
    consider(turn.before_reply);
  }
  return nearest;
}

// The oldest first, those of the other branches before those of this one; never those of the last turn.
void Conversation::forget_old_bookmarks() {
  std::vector<std::shared_ptr<const Bookmark>*> all;
  auto list = [&](Place& place, size_t turns) {
    for (size_t i = 0; i < turns; i++) {
      all.push_back(&place.turns[i].before_message);
      all.push_back(&place.turns[i].before_reply);
    }
  };
  for (auto& [name, place] : others_) list(place, place.turns.size());
  list(now_, now_.turns.size() - 1);
  std::set<const Bookmark*> distinct;
  uint64_t bytes = 0;
  for (const auto* place : all) {
    if (distinct.insert(place->get()).second) bytes += bytes_of(*place);
  }
  for (auto* place : all) {
    if (bytes <= options_.bookmark_bytes) return;
    if (place->use_count() == 1) bytes -= bytes_of(*place);
    place->reset();
  }
}

std::string Conversation::message_with_wish(std::string_view message) const {
  return message_text(options_.form, fmt::format("{}{}", message, think_wish(think())));
}

// What ends the turn before: nothing at the beginning, and only what is missing of a blank line.
std::string_view Conversation::separator() const {
  if (!options_.form.dialogue) return "";
  std::string end;
  const std::vector<int32_t>& tokens = now_.session.tokens;
  for (size_t i = tokens.size(); i > 0 && end.size() < turn_end.size(); i--) {
    end.insert(0, tokenizer_->bytes(tokens[i - 1]));
  }
  if (end.empty() || end.ends_with(turn_end)) return "";
  return end.ends_with('\n') ? turn_end.substr(1) : turn_end;
}

}  // namespace rwkv
