#include "model/text/conversation_notes.h"

#include <optional>

#include "core/error.h"
#include "core/json.h"

namespace rwkv {
namespace {

const std::string* text_of(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value == nullptr ? nullptr : value->string();
}

const uint64_t* number_of(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value == nullptr ? nullptr : value->unsigned_number();
}

std::optional<Turn> read_turn(const Json& json) {
  const std::string *message = text_of(json, "message"), *reply = text_of(json, "reply");
  const uint64_t *begin = number_of(json, "message_begin"), *reply_begin = number_of(json, "reply_begin");
  if (message == nullptr || reply == nullptr || begin == nullptr || reply_begin == nullptr)
    return std::nullopt;
  return Turn{*message, *reply, *begin, *reply_begin};
}

// Nothing when a part is missing, of another type, or out of order.
std::optional<ConversationNotes> read_parts(const Json& json, size_t tokens) {
  const std::string* form = text_of(json, "template");
  const Json *from_nothing = json.find("from_nothing"), *turns = json.find("turns");
  const bool* flag = from_nothing == nullptr ? nullptr : std::get_if<bool>(&from_nothing->value);
  if (form == nullptr || flag == nullptr || turns == nullptr || turns->array() == nullptr)
    return std::nullopt;
  ConversationNotes notes{*form, *flag, {}};
  size_t last = 0;
  for (const Json& element : *turns->array()) {
    std::optional<Turn> turn = read_turn(element);
    bool in_order = turn && last <= turn->message_begin && turn->message_begin <= turn->reply_begin;
    if (!in_order) return std::nullopt;
    last = turn->reply_begin;
    notes.turns.push_back(std::move(*turn));
  }
  return last <= tokens ? std::optional(std::move(notes)) : std::nullopt;
}

}  // namespace

std::string write_notes(const ConversationNotes& notes) {
  Json::Array turns;
  for (const Turn& turn : notes.turns) {
    turns.push_back({Json::Object{{"message", {turn.message}},
                                  {"reply", {turn.reply}},
                                  {"message_begin", {uint64_t{turn.message_begin}}},
                                  {"reply_begin", {uint64_t{turn.reply_begin}}}}});
  }
  return to_string(Json{Json::Object{
      {"template", {notes.form}}, {"from_nothing", {notes.from_nothing}}, {"turns", {std::move(turns)}}}});
}

ConversationNotes read_notes(const Session& session) {
  if (session.notes.empty()) return {};
  const char* what = "the session's notes (rwkv.conversation)";
  auto notes = read_parts(parse_json(session.notes, what), session.tokens.size());
  if (!notes) throw Error(std::string(what) + " are damaged: its messages cannot be told apart");
  return std::move(*notes);
}

}  // namespace rwkv
