// Texts beside the conversation: generated from somewhere else, and leaving it alone. (v2/chat.py's +gen, ++
// and +++.)
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/executor.h"
#include "model/state.h"
#include "model/text/conversation.h"
#include "model/text/generate.h"
#include "tokenizer/tokenizer.h"

namespace rwkv {

class FreeText {
 public:
  static constexpr int64_t max_tokens = 257;  ///< drawn at a time

  /// Executor and tokenizer must outlive it.
  FreeText(Executor& executor, const Tokenizer& tokenizer) : executor_(&executor), tokenizer_(&tokenizer) {}

  /// Reads `text` behind `from` (without tokens: from nothing) and goes on with it until end of text or one
  /// of `stop_texts`. When `interrupted` ends the reading, nothing is generated and the text before stays the
  /// last one. Throws Error.
  Reply begin(const Session& from, std::string_view text, std::vector<std::string> stop_texts,
              const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted = {});

  /// The last part once more, drawn anew. Throws Error when there is none.
  Reply again(const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted = {});

  /// Goes on behind the last part. Throws Error when there is none.
  Reply more(const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted = {});

 private:
  Reply generate(const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted);

  Executor* executor_;
  const Tokenizer* tokenizer_;
  std::optional<Generator> generator_;
  std::vector<std::string> stop_texts_;
  std::optional<Session> before_, after_;  // the last part
};

}  // namespace rwkv
