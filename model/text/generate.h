// Text from a model: draws tokens, moves the state over them, and ends exactly where a stop text begins.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/executor.h"
#include "model/state.h"
#include "model/text/sampler.h"
#include "model/text/stop.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace rwkv {

/// Asked now and then during long work; true ends the work.
using Interrupted = std::function<bool()>;
/// Receives text in pieces of whole UTF-8 characters.
using ShowText = std::function<void(std::string_view)>;

struct GenerateOptions {
  std::vector<std::string> stop_texts = {};
  std::vector<int32_t> stop_tokens = {};  ///< they end the reply, and are neither shown nor fed
  int64_t max_tokens = 4096;              ///< drawn for one reply
};

enum class ReplyEnd : uint8_t { stop_text, stop_token, limit, interrupted };

struct Reply {
  ReplyEnd end = ReplyEnd::limit;
  int64_t tokens = 0;  ///< that were drawn, those beyond the text shown included
};

/// Moves a session over tokens, in chunks; the logits are then those that follow. `stop` is asked between
/// chunks, with the tokens done: true ends the work, the result is false, and the session stands somewhere
/// between. Throws Error.
bool feed(Executor& executor, std::span<const int32_t> tokens, Session& session,
          const std::function<bool(int64_t done)>& stop = {});

/// Makes one reply after another with the same options. Reuses its memory: after the first tokens of a reply
/// none of them allocates a state. The same seed and the same session give the same text, whatever the chunk
/// and the number of threads.
class Generator {
 public:
  /// The ids without bytes are never drawn, except those that are stop tokens. The executor and the tokenizer
  /// must outlive the generator. Throws Error for options out of range, an empty stop text, a stop token
  /// outside the vocabulary.
  Generator(Executor& executor, const Tokenizer& tokenizer, SamplerOptions sampling, GenerateOptions options);

  /// Continues the session, which must have logits, until a stop text, a stop token or the limit, or until
  /// `interrupted`, which is asked before every token, says so. What may still become a stop text and
  /// characters that are not whole are held back; bytes that never become a character are shown as U+FFFD.
  ///
  /// In the end the session is that of the text shown, tokens and logits included: when the reply ends inside
  /// a token, the bytes before are encoded anew. Penalties start afresh, random numbers go on. What `show`
  /// throws, and errors, leave the session at a token of the reply.
  Reply generate(Session& session, const ShowText& show, const Interrupted& interrupted = {});

  /// For the replies from now on; the random numbers go on unless the seed is another. Throws Error as the
  /// constructor does, and then changes nothing.
  void set(SamplerOptions sampling, GenerateOptions options);

  [[nodiscard]] const SamplerOptions& sampling() const { return sampler_.options(); }

 private:
  // What is needed to go back to where a token began.
  struct Snapshot {
    State state;
    std::vector<float> logits;
  };

  ReplyEnd draw(Session& session, StopMatcher& matcher, Reply& reply, const ShowText& show,
                const Interrupted& interrupted);
  void hold(const Session& session, size_t pending);
  void rewind(Session& session, const StopStep& step);
  void show_text(std::string_view bytes, const ShowText& show);

  Executor* executor_;
  const Tokenizer* tokenizer_;
  GenerateOptions options_;
  Sampler sampler_;
  std::vector<Snapshot> snapshots_;  // the first held_ of them: before each pending token that was fed
  size_t held_ = 0;
  Utf8Stream characters_;
  std::string text_;
};

}  // namespace rwkv
