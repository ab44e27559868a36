#include "model/text/conversation_notes.h"

#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "model/model.h"

namespace rwkv {
namespace {

// Parts of a JSON object; what is missing or of another type makes the whole unusable.
class Parts {
 public:
  explicit Parts(const Json& object) : object_(object) {}

  std::string text(std::string_view key) { return take<std::string>(key); }
  bool flag(std::string_view key) { return take<bool>(key); }
  size_t number(std::string_view key) { return take<uint64_t>(key); }
  const Json::Array& list(std::string_view key) {
    static const Json::Array none;
    const Json* value = object_.find(key);
    const Json::Array* array = value == nullptr ? nullptr : value->array();
    good_ = good_ && array != nullptr;
    return array == nullptr ? none : *array;
  }
  [[nodiscard]] bool good() const { return good_; }

 private:
  template <class T>
  T take(std::string_view key) {
    const Json* value = object_.find(key);
    const T* found = value == nullptr ? nullptr : std::get_if<T>(&value->value);
    good_ = good_ && found != nullptr;
    return found == nullptr ? T{} : *found;
  }

  const Json& object_;
  bool good_ = true;
};

// False when a part is missing, or the turns are not in order within so many tokens.
bool read_turns(const Json::Array& list, size_t tokens, std::vector<Turn>& turns) {
  size_t last = 0;
  for (const Json& element : list) {
    Parts parts(element);
    turns.push_back({parts.text("message"), parts.text("reply"), parts.number("message_begin"),
                     parts.number("reply_begin")});
    const Turn& turn = turns.back();
    if (!parts.good() || turn.message_begin < last || turn.reply_begin < turn.message_begin) return false;
    last = turn.reply_begin;
  }
  return last <= tokens;
}

bool read_branch(const Json& json, const Session& session, NotedBranch& branch) {
  Parts parts(json);
  branch.name = parts.text("name");
  branch.common = parts.number("common");
  const int64_t n_vocab = session.state.model().config().n_vocab;
  for (const Json& token : parts.list("tokens")) {
    const uint64_t* id = token.unsigned_number();
    if (id == nullptr || *id >= static_cast<uint64_t>(n_vocab)) return false;
    branch.tokens.push_back(static_cast<int32_t>(*id));
  }
  return parts.good() && branch.common <= session.tokens.size() &&
         read_turns(parts.list("turns"), branch.common + branch.tokens.size(), branch.turns);
}

bool read_parts(const Json& json, const Session& session, ConversationNotes& notes) {
  Parts parts(json);
  notes.form = parts.text("template");
  notes.user = parts.text("user");
  notes.bot = parts.text("bot");
  notes.message = parts.text("message");
  notes.from_nothing = parts.flag("from_nothing");
  notes.branch = parts.text("branch");
  bool good = read_turns(parts.list("turns"), session.tokens.size(), notes.turns);
  for (const Json& other : parts.list("others")) {
    good = good && read_branch(other, session, notes.others.emplace_back());
  }
  return good && parts.good();
}

Json json_of(const std::vector<Turn>& turns) {
  Json::Array array;
  for (const Turn& turn : turns) {
    array.push_back({Json::Object{{"message", {turn.message}},
                                  {"reply", {turn.reply}},
                                  {"message_begin", {uint64_t{turn.message_begin}}},
                                  {"reply_begin", {uint64_t{turn.reply_begin}}}}});
  }
  return {std::move(array)};
}

Json json_of(const NotedBranch& branch) {
  Json::Array tokens;
  for (int32_t token : branch.tokens) tokens.push_back({static_cast<uint64_t>(token)});
  return {Json::Object{{"name", {branch.name}},
                       {"common", {uint64_t{branch.common}}},
                       {"tokens", {std::move(tokens)}},
                       {"turns", json_of(branch.turns)}}};
}

}  // namespace

std::string write_notes(const ConversationNotes& notes) {
  Json::Array others;
  for (const NotedBranch& branch : notes.others) others.push_back(json_of(branch));
  return to_string(Json{Json::Object{{"template", {notes.form}},
                                     {"user", {notes.user}},
                                     {"bot", {notes.bot}},
                                     {"message", {notes.message}},
                                     {"from_nothing", {notes.from_nothing}},
                                     {"branch", {notes.branch}},
                                     {"turns", json_of(notes.turns)},
                                     {"others", {std::move(others)}}}});
}

ConversationNotes read_notes(const Session& session) {
  ConversationNotes notes;
  if (session.notes.empty()) return notes;
  const char* what = "the session's notes (rwkv.conversation)";
  if (!read_parts(parse_json(session.notes, what), session, notes)) {
    throw Error(std::string(what) + " are damaged: its messages cannot be told apart");
  }
  return notes;
}

}  // namespace rwkv
