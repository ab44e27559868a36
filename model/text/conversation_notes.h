// The turns of a conversation, and how a state file tells of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/state.h"

namespace rwkv {

constexpr const char* main_branch = "main";

/// A place in a conversation, in host memory.
struct Bookmark {
  std::vector<std::byte> state;
  std::vector<float> logits;
  size_t tokens = 0;  ///< of the session, before this place
};

/// A message and its reply.
struct Turn {
  std::string message, reply;  ///< the reply as it was shown, without thinking
  size_t message_begin = 0;    ///< tokens of the session before it
  size_t reply_begin = 0;
  std::shared_ptr<const Bookmark> before_message = {}, before_reply = {};  ///< none where forgotten
};

/// Another branch of the conversation: its tokens are the first `common` ones of the session, then these.
struct NotedBranch {
  std::string name;
  size_t common = 0;
  std::vector<int32_t> tokens = {};
  std::vector<Turn> turns = {};
};

/// What a session's notes say of the conversation.
struct ConversationNotes {
  std::string form = {};                          ///< the name of the template
  std::string user = {}, bot = {}, message = {};  ///< of the template: for one that is in no table
  bool from_nothing = false;         ///< the tokens make the state: it did not begin from a trained one
  std::string branch = main_branch;  ///< the session's
  std::vector<Turn> turns = {};      ///< without bookmarks
  std::vector<NotedBranch> others = {};
};

/// As one JSON object.
std::string write_notes(const ConversationNotes& notes);

/// Of a session without notes: nothing. Throws Error when they are damaged or do not fit its tokens.
ConversationNotes read_notes(const Session& session);

}  // namespace rwkv
