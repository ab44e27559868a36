#include "model/text/conversation_notes.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace rwkv {
namespace {

using Json = nlohmann::json;

Turn read_turn(const Json& json) {
  Turn turn;
  turn.message = json.at("message");
  turn.reply = json.at("reply");
  turn.message_begin = json.at("message_begin");
  turn.reply_begin = json.at("reply_begin");
  return turn;
}

bool in_order(const std::vector<Turn>& turns, size_t tokens) {
  size_t last = 0;
  for (const Turn& turn : turns) {
    if (turn.message_begin < last || turn.reply_begin < turn.message_begin) return false;
    last = turn.reply_begin;
  }
  return last <= tokens;
}

}  // namespace

std::string write_notes(const ConversationNotes& notes) {
  Json turns = Json::array();
  for (const Turn& turn : notes.turns) {
    turns.push_back({{"message", turn.message},
                     {"reply", turn.reply},
                     {"message_begin", turn.message_begin},
                     {"reply_begin", turn.reply_begin}});
  }
  Json json = {{"template", notes.form}, {"from_nothing", notes.from_nothing}, {"turns", std::move(turns)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ConversationNotes read_notes(const Session& session) {
  ConversationNotes notes;
  if (session.notes.empty()) return notes;
  bool good = false;
  try {
    Json json = Json::parse(session.notes);
    notes.form = json.at("template");
    notes.from_nothing = json.at("from_nothing");
    for (const Json& turn : json.at("turns")) notes.turns.push_back(read_turn(turn));
    good = in_order(notes.turns, session.tokens.size());
  } catch (const Json::exception&) {
    good = false;
  }
  if (!good)
    throw Error("the session's notes (rwkv.conversation) are damaged: its messages cannot be told apart");
  return notes;
}

}  // namespace rwkv
