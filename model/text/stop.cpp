#include "model/text/stop.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

struct Match {
  std::optional<size_t> complete;  // the shortest stop text that stands here
  bool possible = false;           // the text ends within one that may stand here
};

Match match_at(const std::vector<std::string>& stops, std::string_view text) {
  Match match;
  for (size_t i = 0; i < stops.size(); ++i) {
    if (text.starts_with(stops[i])) {
      if (!match.complete || stops[i].size() < stops[*match.complete].size()) match.complete = i;
    } else if (stops[i].starts_with(text)) {
      match.possible = true;
    }
  }
  return match;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw Error("a stop text is empty: give at least one byte");
    if (stop.size() > max_stop_bytes) {
      throw Error(
          fmt::format("a stop text has {} bytes: at most {} are possible", stop.size(), max_stop_bytes));
    }
  }
}

StopStep StopMatcher::push(std::string_view token_bytes) {
  if (ended_) throw Error("a token was pushed after the end of the reply");
  text_ += token_bytes;
  ends_.push_back(text_.size());
  return advance(false);
}

StopStep StopMatcher::finish() {
  if (ended_) throw Error("the reply was ended twice");
  return advance(true);
}

size_t StopMatcher::max_pending_tokens() const {
  size_t longest = 1;
  for (const std::string& stop : stops_) longest = std::max(longest, stop.size());
  return longest - 1;
}

StopStep StopMatcher::advance(bool at_end) {
  StopStep step;
  ended_ = at_end;
  size_t position = shown_;
  for (; position < text_.size(); ++position) {
    const Match match = match_at(stops_, std::string_view(text_).substr(position));
    if (match.complete) {
      ended_ = true;
      step.stopped = true;
      step.stop = *match.complete;
      describe_stop(position, step);
      break;
    }
    if (match.possible && !at_end) break;
  }
  step.shown = text_.substr(shown_, position - shown_);
  shown_ = position;
  if (ended_) {
    ends_.clear();
  } else {
    forget_shown_tokens();
  }
  return step;
}

void StopMatcher::describe_stop(size_t position, StopStep& step) const {
  const auto first_undone = std::upper_bound(ends_.begin(), ends_.end(), position);
  const size_t begin = first_undone == ends_.begin() ? 0 : *(first_undone - 1);
  step.first_undone = static_cast<size_t>(first_undone - ends_.begin());
  step.kept_tokens = shown_tokens_ + step.first_undone;
  step.remainder = text_.substr(begin, position - begin);
}

void StopMatcher::forget_shown_tokens() {
  const auto first_pending = std::upper_bound(ends_.begin(), ends_.end(), shown_);
  if (first_pending == ends_.begin()) return;
  const size_t bytes = *(first_pending - 1);
  shown_tokens_ += static_cast<size_t>(first_pending - ends_.begin());
  ends_.erase(ends_.begin(), first_pending);
  for (size_t& end : ends_) end -= bytes;
  text_.erase(0, bytes);
  shown_ -= bytes;
}

}  // namespace rwkv
