#include "model/text/think.h"

#include <algorithm>

namespace rwkv {
namespace {

constexpr std::string_view opening = "<think", closing = "</think", bracket = ">", blanks = " \n";

// How many bytes at the end of the text may become the mark.
size_t beginning_at_end(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; length--) {
    if (text.ends_with(mark.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

ThinkSplitter::ThinkSplitter(Think think)
    : place_(think == Think::off    ? Place::front
             : think == Think::fast ? Place::closer
                                    : Place::opener) {}

void ThinkSplitter::push(std::string_view text, const ShowReply& show) {
  held_ += text;
  while (!held_.empty() && step(false, show)) {
  }
}

void ThinkSplitter::finish(const ShowReply& show) {
  while (!held_.empty() && step(true, show)) {
  }
}

// Takes something from what is held, or moves on. False when more text is needed.
bool ThinkSplitter::step(bool at_end, const ShowReply& show) {
  switch (place_) {
    case Place::front: {
      size_t begin = std::min(held_.find_first_not_of(blanks), held_.size());
      bool maybe = opening.starts_with(std::string_view(held_).substr(begin, opening.size()));
      bool whole = held_.compare(begin, opening.size(), opening) == 0;
      if (maybe && !whole && !at_end) return false;
      if (whole) held_.erase(0, begin + opening.size());
      place_ = whole ? Place::opener : Place::answer;
      return true;
    }
    case Place::opener:
      return skip(Place::thinking);
    case Place::thinking:
      return think(at_end, show);
    case Place::closer:
      return skip(Place::blanks);
    case Place::blanks:
      held_.erase(0, held_.find_first_not_of(blanks));
      if (!held_.empty()) place_ = Place::answer;
      return !held_.empty();
    case Place::answer:
      show(held_, ReplyPart::answer);
      held_.clear();
      return false;
  }
  return false;
}

bool ThinkSplitter::skip(Place next) {
  if (held_.starts_with(bracket)) held_.erase(0, bracket.size());
  place_ = next;
  return true;
}

bool ThinkSplitter::think(bool at_end, const ShowReply& show) {
  if (first_) held_.erase(0, held_.find_first_not_of(blanks));
  size_t end = held_.find(closing);
  bool closed = end != std::string::npos;
  if (!closed) end = held_.size() - (at_end ? 0 : beginning_at_end(held_, closing));
  std::string text = held_.substr(0, end);
  held_.erase(0, end + (closed ? closing.size() : 0));
  if (closed) place_ = Place::closer;
  if (!text.empty()) {
    first_ = false;
    show(text, ReplyPart::thinking);
  }
  return closed;
}

}  // namespace rwkv
