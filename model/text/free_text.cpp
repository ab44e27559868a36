#include "model/text/free_text.h"

#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

const char* const nothing_yet = "there is no text to go on with: begin one first";

}  // namespace

Reply FreeText::begin(const Session& from, std::string_view text, std::vector<std::string> stop_texts,
                      const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted) {
  Session session = from;
  bool whole = feed(*executor_, tokenizer_->encode(text), session,
                    [&](int64_t) { return interrupted && interrupted(); });
  if (!whole) return {ReplyEnd::interrupted, 0};
  stop_texts_ = std::move(stop_texts);
  before_ = std::move(session);
  return generate(sampling, show, interrupted);
}

Reply FreeText::again(const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted) {
  if (!before_) throw Error(nothing_yet);
  return generate(sampling, show, interrupted);
}

Reply FreeText::more(const SamplerOptions& sampling, const ShowText& show, const Interrupted& interrupted) {
  if (!after_) throw Error(nothing_yet);
  before_ = std::move(after_);
  after_.reset();
  return generate(sampling, show, interrupted);
}

Reply FreeText::generate(const SamplerOptions& sampling, const ShowText& show,
                         const Interrupted& interrupted) {
  Session session = *before_;
  GenerateOptions options{stop_texts_, {end_of_text}, max_tokens};
  if (generator_) {
    generator_->set(sampling, std::move(options));
  } else {
    generator_.emplace(*executor_, *tokenizer_, sampling, std::move(options));
  }
  Reply reply = generator_->generate(session, show, interrupted);
  after_ = std::move(session);
  return reply;
}

}  // namespace rwkv
