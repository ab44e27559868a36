// A chat: messages and replies in the form that RWKV models are trained for,
//
//     User: MESSAGE\n\nAssistant: REPLY\n\n
//
// A reply ends before the blank line, so the session between two turns is that of the text shown; the blank
// line is fed with the next message.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/executor.h"
#include "model/state.h"
#include "model/text/generate.h"
#include "tokenizer/tokenizer.h"

namespace rwkv {

/// What a model without a trained state should have read before the first message, so that it knows its part.
constexpr std::string_view first_message = "hi";
constexpr std::string_view first_reply =
    "Hi. I am your assistant and I will provide expert full response in full details. Please feel free to "
    "ask any question and I will always answer it.";

/// The two as text, with the blank line at the end.
std::string first_exchange();

/// A message as models know them: CR LF becomes LF, blanks at both ends go (those of Unicode too), and so do
/// empty lines, which would end the message.
std::string clean_message(std::string_view text);

/// The options of a conversation's replies: they end at an empty line.
GenerateOptions conversation_options(int64_t max_tokens);

/// Asked between the chunks of a text and after the last: tokens done, tokens in all. True ends the work.
using Reading = std::function<bool(int64_t done, int64_t total)>;

class Conversation {
 public:
  /// Begins from `start`, to which restart() goes back. Executor and tokenizer must outlive the conversation.
  /// Throws Error as Generator does.
  Conversation(Executor& executor, const Tokenizer& tokenizer, Session start, SamplerOptions sampling,
               GenerateOptions options);

  /// Reads a message, which should be clean, up to where the reply begins. Returns the number of tokens read,
  /// or 0 when `reading` ended it: then, and when an Error is thrown, the conversation is as it was before.
  int64_t read(std::string_view message, const Reading& reading = {});

  /// Draws the reply to the message just read. Interrupted, it is the shorter reply that was shown. When
  /// anything throws, the conversation is as it was before the message.
  Reply reply(const ShowText& show, const Interrupted& interrupted = {});

  /// Goes back to where the last reply began, so that reply() draws another. False when there is none.
  bool undo_reply();

  /// Forgets everything since the start.
  void restart();

  /// Goes on from another session of the same model. restart() still goes back to the start.
  void resume(Session session);

  [[nodiscard]] const Session& session() const { return session_; }

 private:
  // A place in the conversation to go back to.
  struct Mark {
    State state;
    std::vector<float> logits;
    size_t tokens = 0;
    bool set = false;
  };

  void set(Mark& mark) const;
  void go_back(const Mark& mark);
  void forget_marks() { before_message_.set = before_reply_.set = false; }
  [[nodiscard]] std::string_view separator() const;

  Executor* executor_;
  const Tokenizer* tokenizer_;
  Generator generator_;
  Session start_, session_;
  Mark before_message_, before_reply_;
};

}  // namespace rwkv
