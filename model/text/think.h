// Thinking in a reply: `<think>...</think>` in front of the answer, told apart while it streams.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "model/text/prompt_template.h"

namespace rwkv {

enum class ReplyPart : uint8_t { answer, thinking };

/// Receives a reply in pieces of whole UTF-8 characters.
using ShowReply = std::function<void(std::string_view text, ReplyPart part)>;

/// Divides a reply whose prompt ends with think_opener(think): what the model says up to "</think>" is
/// thinking. The
/// '>' that the opener lacks, and blanks in front of the two parts, are left out; in the mode `off` a block
/// that the model opens by itself is one too. What may still become a mark is held back.
class ThinkSplitter {
 public:
  explicit ThinkSplitter(Think think);
  void push(std::string_view text, const ShowReply& show);
  /// No text follows: what was held back is shown.
  void finish(const ShowReply& show);
  /// Whether the model still thinks.
  [[nodiscard]] bool thinking() const { return place_ == Place::opener || place_ == Place::thinking; }

 private:
  enum class Place : uint8_t {
    front,     // of a reply without an opener: a block may come
    opener,    // behind "<think": a '>' may come
    thinking,  // in the block
    closer,    // behind "</think": a '>' may come
    blanks,    // in front of the answer
    answer,
  };
  bool step(bool at_end, const ShowReply& show);
  bool skip(Place next);
  bool think(bool at_end, const ShowReply& show);

  Place place_;
  bool first_ = true;  // of the thinking: blanks are left out
  std::string held_;
};

}  // namespace rwkv
