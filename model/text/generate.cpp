#include "model/text/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

SamplerOptions with_bans(SamplerOptions sampling, const Tokenizer& tokenizer, int64_t n_vocab,
                         const std::vector<int32_t>& stop_tokens) {
  for (int32_t token : stop_tokens) {
    if (token < 0 || token >= n_vocab) {
      throw Error(
          fmt::format("stop token {} is outside the model's vocabulary (0 to {})", token, n_vocab - 1));
    }
  }
  for (int32_t id = 0; id < n_vocab; id++) {
    if (tokenizer.bytes(id).empty() && !contains(stop_tokens, id)) sampling.banned.push_back(id);
  }
  return sampling;
}

void check(const GenerateOptions& options) {
  if (options.max_tokens < 0) {
    throw Error(fmt::format("max_tokens must be at least 0, not {}", options.max_tokens));
  }
  static_cast<void>(StopMatcher(options.stop_texts));  // so that a bad stop text is refused here
}

}  // namespace

bool feed(Executor& executor, std::span<const int32_t> tokens, Session& session,
          const std::function<bool(int64_t done)>& stop) {
  session.logits.resize(static_cast<size_t>(executor.model().config().n_vocab));
  int64_t done = executor.forward(tokens, session.state, session.logits, stop);
  session.tokens.insert(session.tokens.end(), tokens.begin(), tokens.begin() + done);
  return done == static_cast<int64_t>(tokens.size());
}

Generator::Generator(Executor& executor, const Tokenizer& tokenizer, SamplerOptions sampling,
                     GenerateOptions options)
    : executor_(&executor),
      tokenizer_(&tokenizer),
      options_(std::move(options)),
      sampler_(with_bans(std::move(sampling), tokenizer, executor.model().config().n_vocab,
                         options_.stop_tokens)) {
  check(options_);
}

void Generator::set(SamplerOptions sampling, GenerateOptions options) {
  check(options);
  sampler_.set(
      with_bans(std::move(sampling), *tokenizer_, executor_->model().config().n_vocab, options.stop_tokens));
  options_ = std::move(options);
}

Reply Generator::generate(Session& session, const ShowText& show, const Interrupted& interrupted) {
  if (session.logits.empty()) throw Error("there is nothing to continue: feed a text first");
  StopMatcher matcher(options_.stop_texts);
  sampler_.clear_penalties();
  characters_ = {};
  held_ = 0;
  Reply reply;
  reply.end = draw(session, matcher, reply, show, interrupted);
  if (reply.end != ReplyEnd::stop_text) {
    StopStep last = matcher.finish();
    show_text(last.shown, show);
    if (last.stopped) {
      rewind(session, last);
      reply.end = ReplyEnd::stop_text;
    }
  }
  text_.clear();
  characters_.finish(text_);
  if (!text_.empty()) show(text_);
  return reply;
}

ReplyEnd Generator::draw(Session& session, StopMatcher& matcher, Reply& reply, const ShowText& show,
                         const Interrupted& interrupted) {
  while (reply.tokens < options_.max_tokens) {
    if (interrupted && interrupted()) return ReplyEnd::interrupted;
    int32_t token = sampler_.sample(session.logits);
    reply.tokens++;
    if (contains(options_.stop_tokens, token)) return ReplyEnd::stop_token;
    std::string_view bytes = tokenizer_->bytes(token);
    StopStep step = matcher.push(bytes);
    show_text(step.shown, show);
    if (step.stopped) {
      rewind(session, step);
      return ReplyEnd::stop_text;
    }
    sampler_.accept(token, bytes);
    hold(session, matcher.pending_tokens());
    feed(*executor_, std::span(&token, 1), session);
  }
  return ReplyEnd::limit;
}

// Called before a token is fed: keeps the states before the `pending` last tokens, this one included.
void Generator::hold(const Session& session, size_t pending) {
  if (pending == 0) {
    held_ = 0;
    return;
  }
  if (size_t keep = pending - 1; held_ > keep) {
    auto first = snapshots_.begin();
    auto dropped = static_cast<std::ptrdiff_t>(held_ - keep);
    std::rotate(first, first + dropped, first + static_cast<std::ptrdiff_t>(held_));
    held_ = keep;
  }
  if (held_ == snapshots_.size()) {
    snapshots_.push_back({session.state, session.logits});
  } else {
    snapshots_[held_].state = session.state;
    snapshots_[held_].logits = session.logits;
  }
  held_++;
}

void Generator::rewind(Session& session, const StopStep& step) {
  if (step.first_undone < held_) {
    const Snapshot& before = snapshots_[step.first_undone];
    session.state = before.state;
    session.logits = before.logits;
    session.tokens.resize(session.tokens.size() - (held_ - step.first_undone));
  }
  feed(*executor_, tokenizer_->encode(step.remainder), session);
}

void Generator::show_text(std::string_view bytes, const ShowText& show) {
  text_.clear();
  characters_.push(bytes, text_);
  if (!text_.empty()) show(text_);
}

}  // namespace rwkv
