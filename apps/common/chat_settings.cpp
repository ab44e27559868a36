#include "apps/common/chat_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "apps/common/replaced.h"
#include "core/error.h"

namespace rwkv::apps {
namespace {

template <class T>
T number(std::string_view name, std::string_view text) {
  T value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error(fmt::format("{} needs a number, not '{}'", name, printable(text)));
  }
  return value;
}

bool on_or_off(std::string_view name, std::string_view text) {
  if (text != "on" && text != "off")
    throw Error(fmt::format("{} is on or off, not '{}'", name, printable(text)));
  return text == "on";
}

struct Setting {
  std::string_view name, what;
  std::string (*get)(const ChatSettings&);
  void (*set)(ChatSettings&, std::string_view name, std::string_view value);
};

// A float among the sampler's options.
template <float SamplerOptions::*member>
Setting sampler_setting(std::string_view name, std::string_view what) {
  return {name, what, [](const ChatSettings& s) { return fmt::format("{}", s.sampling.*member); },
          [](ChatSettings& s, std::string_view n, std::string_view v) {
            s.sampling.*member = number<float>(n, v);
          }};
}

const std::array<Setting, 10>& all_settings() {
  static const std::array<Setting, 10> settings = {{
      sampler_setting<&SamplerOptions::temperature>("temperature", "0 draws the likeliest token"),
      sampler_setting<&SamplerOptions::top_p>("top_p",
                                              "draw among the likeliest tokens that have this share"),
      {"top_k", "draw among this many tokens; 0: any number",
       [](const ChatSettings& s) { return fmt::format("{}", s.sampling.top_k); },
       [](ChatSettings& s, std::string_view n, std::string_view v) { s.sampling.top_k = number<int>(n, v); }},
      sampler_setting<&SamplerOptions::presence_penalty>("presence", "penalty of tokens that the reply has"),
      sampler_setting<&SamplerOptions::frequency_penalty>("frequency", "penalty for each time"),
      sampler_setting<&SamplerOptions::penalty_decay>("decay", "what is left of a penalty after one token"),
      {"seed", "makes replies repeatable",
       [](const ChatSettings& s) { return fmt::format("{}", s.sampling.seed); },
       [](ChatSettings& s, std::string_view n, std::string_view v) {
         s.sampling.seed = number<uint64_t>(n, v);
       }},
      {"max_tokens", "of one reply", [](const ChatSettings& s) { return fmt::format("{}", s.max_tokens); },
       [](ChatSettings& s, std::string_view n, std::string_view v) { s.max_tokens = number<int64_t>(n, v); }},
      {"think", "off, fast, on, short or long, for models that think",
       [](const ChatSettings& s) { return std::string(name_of(s.think)); },
       [](ChatSettings& s, std::string_view, std::string_view v) { s.think = find_think(v); }},
      {"timing", "on: tokens per second after each reply",
       [](const ChatSettings& s) { return std::string(s.timing ? "on" : "off"); },
       [](ChatSettings& s, std::string_view n, std::string_view v) { s.timing = on_or_off(n, v); }},
  }};
  return settings;
}

// nullptr when there is none of that name.
const Setting* find_setting(std::string_view name) {
  const auto& all = all_settings();
  const std::string wanted = replaced(name, "-", "_");  // as the options are written
  const auto* found = std::ranges::find_if(all, [&](const Setting& s) { return s.name == wanted; });
  return found == all.end() ? nullptr : found;
}

// Cuts `mark` and the number behind it out of the message; the number as text, or nothing.
std::optional<std::string> cut_out(std::string& message, std::string_view mark) {
  size_t at = 0;
  auto is_word = [&] { return at == 0 || message[at - 1] == ' ' || message[at - 1] == '\n'; };
  for (at = message.find(mark); at != std::string::npos && !is_word();) at = message.find(mark, at + 1);
  if (at == std::string::npos) return std::nullopt;
  size_t end = std::min(message.find_first_of(" \n", at), message.size());
  std::string value = message.substr(at + mark.size(), end - at - mark.size());
  message.erase(at, end - at);
  return value;
}

}  // namespace

std::string list_settings(const ChatSettings& settings) {
  std::string text;
  for (const Setting& s : all_settings())
    text += fmt::format("  {:12}{:20}  {}\n", s.name, s.get(settings), s.what);
  return text;
}

std::vector<std::string_view> setting_names() {
  std::vector<std::string_view> names;
  for (const Setting& s : all_settings()) names.push_back(s.name);
  return names;
}

bool is_setting(std::string_view name) { return find_setting(name) != nullptr; }

void change_setting(ChatSettings& settings, std::string_view name, std::string_view value) {
  const Setting* found = find_setting(name);
  if (found == nullptr)
    throw Error(fmt::format("there is no setting '{}': /set lists them", printable(name)));
  if (value.empty()) throw Error(fmt::format("{0} needs a value: /set {0} VALUE", name));
  ChatSettings changed = settings;
  found->set(changed, found->name, value);
  check_options(changed.sampling);
  if (changed.max_tokens < 1) throw Error("max_tokens must be at least 1");
  settings = changed;
}

std::pair<std::string, ChatSettings> settings_in_message(const std::string& message,
                                                         const ChatSettings& settings) {
  std::pair<std::string, ChatSettings> result = {message, settings};
  auto& [text, changed] = result;
  if (auto value = cut_out(text, "-temp=")) {
    changed.sampling.temperature = std::clamp(number<float>("-temp", *value), 0.2f, 5.0f);
  }
  if (auto value = cut_out(text, "-top_p=")) {
    changed.sampling.top_p = std::clamp(number<float>("-top_p", *value), 0.0f, 1.0f);
  }
  if (text != message) text = clean_message(text);
  return result;
}

}  // namespace rwkv::apps
