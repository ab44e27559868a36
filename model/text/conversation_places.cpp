// Where a conversation stands: bookmarks, branches, and saving them.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "model/text/conversation.h"

namespace rwkv {
namespace {

std::shared_ptr<const Bookmark> bookmark_of(const Session& session) {
  return std::make_shared<const Bookmark>(
      Bookmark{session.state.to_host(), session.logits, session.tokens.size()});
}

uint64_t bytes_of(const std::shared_ptr<const Bookmark>& place) {
  return place ? place->state.size() + place->logits.size() * sizeof(float) : 0;
}

size_t common_tokens(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  auto [end, other] = std::ranges::mismatch(a, b);
  return static_cast<size_t>(end - a.begin());
}

}  // namespace

Conversation::Place Conversation::start_place(Session start) const {
  auto bookmark = bookmark_of(start);
  return {{{}, bookmark, options_.from_nothing}, std::move(start.tokens), bookmark};
}

bool Conversation::go_back_to(size_t index, const Reading& reading) {
  const Turn& turn = talk_.turns.at(index);
  if (!return_to(turn.message_begin, turn.before_message, reading)) return false;
  talk_.turns.resize(index);
  return true;
}

void Conversation::restart() { static_cast<void>(take(start_)); }

Session Conversation::start() const {
  Session session{State(executor_->shared_model()), start_.tokens, start_.end->logits};
  session.state.from_host(start_.end->state);
  return session;
}

void Conversation::resume(Session session) {
  ConversationNotes notes = read_notes(session);
  auto nothing = [&] { return bookmark_of({State(executor_->shared_model()), {}, {}}); };
  session_ = std::move(session);
  bool again = notes.from_nothing && !session_.tokens.empty();
  talk_ = {std::move(notes.turns), again ? nothing() : bookmark(), notes.from_nothing};
  before_.reset();
  branch_ = notes.branch;
  others_.clear();
  for (NotedBranch& branch : notes.others) {
    Place place{{std::move(branch.turns), talk_.origin, true}, {}, {}};
    place.tokens.assign(session_.tokens.begin(),
                        session_.tokens.begin() + static_cast<std::ptrdiff_t>(branch.common));
    place.tokens.insert(place.tokens.end(), branch.tokens.begin(), branch.tokens.end());
    others_.emplace(std::move(branch.name), std::move(place));
  }
}

void Conversation::start_branch(const std::string& name) {
  if (name == branch_ || others_.contains(name)) {
    throw Error(fmt::format("there is a branch '{}' already", printable(name)));
  }
  others_.emplace(branch_, here());
  branch_ = name;
}

bool Conversation::switch_to(const std::string& name, const Reading& reading) {
  if (name == branch_) return true;
  auto found = others_.find(name);
  if (found == others_.end()) throw Error(fmt::format("there is no branch '{}'", printable(name)));
  Place old = here();
  if (!take(found->second, reading)) return false;
  others_.erase(found);
  others_.emplace(branch_, std::move(old));
  branch_ = name;
  return true;
}

std::vector<std::string> Conversation::branches() const {
  std::vector<std::string> names = {branch_};
  for (const auto& [name, place] : others_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

void Conversation::save(const std::string& path) const {
  constexpr size_t most_tokens = 200'000;  // of the other branches, in the notes
  ConversationNotes notes{options_.form.name, options_.form.user,
                          options_.form.bot,  options_.form.message,
                          talk_.from_nothing, branch_,
                          talk_.turns};
  size_t tokens = 0;
  for (const auto& [name, place] : others_) {
    size_t common = common_tokens(session_.tokens, place.tokens);
    tokens += place.tokens.size() - common;
    if (!talk_.from_nothing || tokens > most_tokens) continue;
    auto begin = place.tokens.begin() + static_cast<std::ptrdiff_t>(common);
    notes.others.push_back({name, common, {begin, place.tokens.end()}, place.talk.turns});
  }
  Session session = session_;
  session.notes = write_notes(notes);
  save_session(path, session);
}

std::shared_ptr<const Bookmark> Conversation::bookmark() const { return bookmark_of(session_); }

Conversation::Place Conversation::here() const { return {talk_, session_.tokens, bookmark()}; }

// Goes to a place. False, and nothing has happened, when `reading` ended the work.
bool Conversation::take(const Place& place, const Reading& reading) {
  Place old = place.end ? Place{} : here();
  Place wanted = place;  // it may be a part of what changes
  talk_ = wanted.talk;
  session_.tokens = wanted.tokens;
  before_.reset();
  bool there = false;
  try {
    there = return_to(wanted.tokens.size(), wanted.end, reading);
  } catch (...) {
    if (old.end) static_cast<void>(take(old));
    throw;
  }
  return there || !take(old);
}

// To where the session had so many tokens: a copy of `place`, or the tokens from the nearest place before,
// read again. False, and nothing has happened, when `reading` ended that.
bool Conversation::return_to(size_t tokens, const std::shared_ptr<const Bookmark>& place,
                             const Reading& reading) {
  const Bookmark* nearest = place ? place.get() : nearest_before(tokens);
  if (nearest == nullptr) {
    throw Error("that place of the conversation is lost: it was loaded, and began from a trained state");
  }
  std::vector<int32_t> missing(session_.tokens.begin() + static_cast<std::ptrdiff_t>(nearest->tokens),
                               session_.tokens.begin() + static_cast<std::ptrdiff_t>(tokens));
  auto to = [&](const Bookmark& bookmark) {
    session_.state.from_host(bookmark.state);
    session_.logits = bookmark.logits;
    session_.tokens.resize(bookmark.tokens);
  };
  if (missing.empty()) {
    to(*nearest);
    return true;
  }
  Place old = here();
  auto undo = [&] {
    to(*old.end);
    session_.tokens = old.tokens;
  };
  auto total = static_cast<int64_t>(missing.size());
  bool whole = false;
  try {
    to(*nearest);
    auto stop = [&](int64_t done) { return reading && reading(done, total); };
    whole = feed(*executor_, missing, session_, stop) && !stop(total);
  } catch (...) {
    undo();
    throw;
  }
  if (!whole) undo();
  return whole;
}

const Bookmark* Conversation::nearest_before(size_t tokens) const {
  const Bookmark* nearest = nullptr;
  auto consider = [&](const std::shared_ptr<const Bookmark>& place) {
    bool better = place && place->tokens <= tokens && (nearest == nullptr || place->tokens > nearest->tokens);
    if (better) nearest = place.get();
  };
  consider(talk_.origin);
  for (const Turn& turn : talk_.turns) {
    consider(turn.before_message);
    consider(turn.before_reply);
  }
  return nearest;
}

// The oldest first, those of the other branches before those of this one; never those of the last turn.
void Conversation::forget_old_bookmarks() {
  std::vector<std::shared_ptr<const Bookmark>*> all;
  auto list = [&](std::vector<Turn>& turns, size_t count) {
    for (size_t i = 0; i < count; i++) {
      all.push_back(&turns[i].before_message);
      all.push_back(&turns[i].before_reply);
    }
  };
  for (auto& [name, place] : others_) list(place.talk.turns, place.talk.turns.size());
  list(talk_.turns, talk_.turns.size() - 1);
  std::map<const Bookmark*, size_t> uses;
  uint64_t bytes = 0;
  for (const auto* place : all) {
    if (uses[place->get()]++ == 0) bytes += bytes_of(*place);
  }
  for (auto* place : all) {
    if (bytes <= options_.bookmark_bytes) return;
    if (--uses[place->get()] == 0) bytes -= bytes_of(*place);
    place->reset();
  }
}

}  // namespace rwkv
