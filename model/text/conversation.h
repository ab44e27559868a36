// A chat: messages and replies in a form that a model is trained for (prompt_template.h), and every place in
// it to go back to.
//
// A reply ends before the empty line behind it, so the session between two turns is that of the text shown;
// the empty line is fed with the next message. Thinking is taken out: after a reply that began with a
// `<think>` block the session is as if the model had answered at once.
//
// The state of an RNN is small, so the places before each message and each reply are kept as bookmarks:
// going back is a copy, nothing is read again. When they take more than `bookmark_bytes`, the oldest are
// forgotten; going back there reads the tokens from the nearest one before it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/executor.h"
#include "model/state.h"
#include "model/text/conversation_notes.h"
#include "model/text/generate.h"
#include "model/text/prompt_template.h"
#include "model/text/think.h"
#include "tokenizer/tokenizer.h"

namespace rwkv {

struct ConversationOptions {
  PromptTemplate form;
  Think think = Think::off;  ///< heeded where the template thinks
  SamplerOptions sampling;
  int64_t max_tokens = 4096;  ///< of a reply, thinking included
  uint64_t bookmark_bytes = uint64_t{1} << 30;
  bool from_nothing = true;  ///< the start did not begin from a trained state
};

struct TurnReply {
  ReplyEnd end = ReplyEnd::limit;
  int64_t tokens = 0;
  bool taken_back =
      false;  ///< it ended within the thinking: the conversation is as if it had not been asked for
};

/// Asked between the chunks of a text and after the last: tokens done, tokens in all. True ends the work.
using Reading = std::function<bool(int64_t done, int64_t total)>;

/// The session in front of the first message: end of text where the template wants it, `system` when it is
/// not empty, and the template's start. Throws Error. The session is of little use when `reading` ended the
/// work.
Session start_session(Executor& executor, const Tokenizer& tokenizer, const PromptTemplate& form,
                      std::string_view system, const Reading& reading = {});

class Conversation {
 public:
  /// Begins from `start`, to which restart() goes back. Executor and tokenizer must outlive the conversation.
  /// Throws Error as Generator does.
  Conversation(Executor& executor, const Tokenizer& tokenizer, Session start, ConversationOptions options);

  /// What is fed for a message, and for the beginning of its reply.
  [[nodiscard]] std::string prompt_of(std::string_view message) const;

  /// Reads a message, which should be clean, up to where the reply begins. Returns the number of tokens read,
  /// or 0 when `reading` ended it: then, and when an Error is thrown, the conversation is as it was before.
  int64_t read(std::string_view message, const Reading& reading = {});

  /// The same in place of turns()[index] and all that follow it.
  int64_t edit(size_t index, std::string_view message, const Reading& reading = {});

  /// Draws the reply to the message just read. Interrupted, it is the shorter reply that was shown. When
  /// anything throws, and when it is taken back, the conversation is as it was before the message; or before
  /// edit() or undo_reply(), with all that followed.
  TurnReply reply(const ShowReply& show, const Interrupted& interrupted = {});

  /// Goes back to where the last reply began, so that reply() draws another. False, and nothing happens, when
  /// there is none or `reading` ended the work. Throws Error as go_back_to() does.
  bool undo_reply(const Reading& reading = {});

  /// Goes back to before the message of turns()[index]. False, and nothing happens, when `reading` ended the
  /// work. Throws Error when that place was forgotten and cannot be made again: the conversation was loaded,
  /// and began from a trained state.
  bool go_back_to(size_t index, const Reading& reading = {});

  /// Forgets everything since the start, on this branch.
  void restart();

  /// Goes on from another session of the same model, with the turns and branches that its notes tell of.
  /// restart() still goes back to the start. Throws Error for damaged notes.
  void resume(Session session);

  /// Begins anew, in another form: `start` is where restart() goes back to from now on. There is one branch
  /// then.
  void begin(Session start, PromptTemplate form);

  /// Another branch, which begins here; this one stays as it is. Throws Error when there is one of that name.
  void start_branch(const std::string& name);
  /// Goes on where that branch stands. False, and nothing happens, when `reading` ended the work. Throws
  /// Error when there is none of that name.
  bool switch_to(const std::string& name, const Reading& reading = {});
  [[nodiscard]] const std::string& branch() const { return branch_; }
  [[nodiscard]] std::vector<std::string> branches() const;

  /// For the replies from now on.
  void set(const SamplerOptions& sampling, Think think, int64_t max_tokens);

  [[nodiscard]] const ConversationOptions& options() const { return options_; }
  [[nodiscard]] const std::vector<Turn>& turns() const { return talk_.turns; }
  /// Its notes are not kept up; save() writes them.
  [[nodiscard]] const Session& session() const { return session_; }
  /// A session at the place where restart() goes back to.
  [[nodiscard]] Session start() const;
  /// Writes a state file of the session, and the turns and branches as its notes. Branches are left out of a
  /// conversation that began from a trained state, and when they are very long. Throws Error.
  void save(const std::string& path) const;

 private:
  struct Talk {
    std::vector<Turn> turns;
    std::shared_ptr<const Bookmark> origin;  // from where the tokens can be read again
    bool from_nothing = true;
  };
  // Where a branch stands.
  struct Place {
    Talk talk;
    std::vector<int32_t> tokens;
    std::shared_ptr<const Bookmark> end;  // none: to be read from the tokens
  };

  [[nodiscard]] Place start_place(Session start) const;
  [[nodiscard]] Place here() const;
  [[nodiscard]] bool take(const Place& place, const Reading& reading = {});
  [[nodiscard]] std::shared_ptr<const Bookmark> bookmark() const;
  [[nodiscard]] const Bookmark* nearest_before(size_t tokens) const;
  [[nodiscard]] bool return_to(size_t tokens, const std::shared_ptr<const Bookmark>& place,
                               const Reading& reading = {});
  void give_up();
  void replace_thinking(Turn& turn);
  void forget_old_bookmarks();
  [[nodiscard]] std::string_view separator() const;
  [[nodiscard]] std::string message_with_wish(std::string_view message) const;
  [[nodiscard]] Think think() const { return options_.form.thinks ? options_.think : Think::off; }

  Executor* executor_;
  const Tokenizer* tokenizer_;
  ConversationOptions options_;
  Generator generator_;
  Session session_;
  Talk talk_;
  Place start_;
  std::optional<Place> before_;  // edit() or undo_reply(), until the reply has come
  std::string branch_ = main_branch;
  std::map<std::string, Place> others_;  // all branches but this one
};

}  // namespace rwkv
