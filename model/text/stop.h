// Stop texts: a reply ends where one of them begins, wherever the borders of tokens fall.
//
// Definition. Let T be the bytes of all tokens pushed. The reply is T up to the smallest position at which a
// stop text occurs in T, or all of T when none does. How T is divided into tokens makes no difference.
//
// Bytes are shown as soon as they must belong to the reply, whatever follows: all before the first position
// at which what stands in T is the beginning of a stop text. A complete stop text ends the reply at once,
// unless a longer one that begins before it may still be completed ("abcd" beside "bc"): then the matcher
// waits.
//
// A token may be part reply, part stop (the World tokenizer has one for a full stop with a newline). The
// state of a model must be that of the text shown, so a caller keeps the states before the tokens that are
// pending, which means not shown to their last byte:
//
//     StopMatcher matcher(stops);
//     std::deque<State> before;                        // the state before each pending token
//     for (;;) {
//       token = sample();                              // stop tokens, limits: break before push
//       StopStep step = matcher.push(bytes_of(token));
//       show(step.shown);
//       if (step.stopped) { rewind(step); return; }
//       if (matcher.pending_tokens() > 0) before.push_back(state);
//       while (before.size() > matcher.pending_tokens()) before.pop_front();
//       feed(token);
//     }
//     StopStep last = matcher.finish();                // what was held back
//     show(last.shown);
//     if (last.stopped) rewind(last);
//
// where rewind() is
//
//     if (step.first_undone < before.size()) state = before[step.first_undone];
//     feed(encode(step.remainder));
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace rwkv {

/// What one push, or the end, adds to the reply.
struct StopStep {
  std::string shown;           ///< bytes to show now
  bool stopped = false;        ///< a stop text was found; the members below say where
  size_t stop = 0;             ///< which of the stop texts: the shortest of those that begin there
  size_t kept_tokens = 0;      ///< how many of all tokens pushed lie wholly in the reply; the next is undone
  size_t first_undone = 0;     ///< that token's place among those that were pending before this call; their
                               ///< number when it is the token just pushed, whose state is the present one
  std::string remainder = {};  ///< the bytes of that token that belong to the reply, shown earlier or now
};

class StopMatcher {
 public:
  static constexpr size_t max_stop_bytes = 256;

  /// None at all is fine: then nothing is ever held back. Throws Error for an empty stop text, which would
  /// stop before the first token, and for one longer than max_stop_bytes.
  explicit StopMatcher(std::vector<std::string> stops);

  /// Throws Error after a step that stopped, and after finish().
  StopStep push(std::string_view token_bytes);
  /// No token follows: what was held back is shown, up to a stop text in it if there is one.
  StopStep finish();

  /// How many of the last tokens pushed are not shown to their last byte. 0 once the reply has ended.
  [[nodiscard]] size_t pending_tokens() const { return ends_.size(); }
  /// What pending_tokens() never exceeds, as long as every token has a byte: the longest stop text less one
  /// byte.
  [[nodiscard]] size_t max_pending_tokens() const;

 private:
  StopStep advance(bool at_end);
  void describe_stop(size_t position, StopStep& step) const;
  void forget_shown_tokens();

  std::vector<std::string> stops_;
  std::string text_;          // the bytes of the pending tokens
  size_t shown_ = 0;          // how many bytes of text_ are shown
  std::vector<size_t> ends_;  // of each pending token, in text_
  size_t shown_tokens_ = 0;   // the tokens before text_
  bool ended_ = false;
};

}  // namespace rwkv
