#include "apps/common/prompt_file.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <optional>

#include "apps/common/replaced.h"
#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"

namespace rwkv::apps {
namespace {

using Values = std::map<std::string, std::string>;

// A Python string literal at `at`, with an f in front or without; nothing when there is none. `at` moves
// behind it.
std::optional<std::string> literal(std::string_view text, size_t& at) {
  while (at < text.size() && (text[at] == 'f' || text[at] == 'F')) at++;
  std::string_view rest = text.substr(std::min(at, text.size()));
  for (std::string_view quote : {"'''", "\"\"\"", "'", "\""}) {
    if (!rest.starts_with(quote)) continue;
    std::string value;
    for (size_t i = quote.size(); i < rest.size(); i++) {
      if (rest.substr(i).starts_with(quote)) {
        at += i + quote.size();
        return value;
      }
      if (quote.size() == 1 && rest[i] == '\n') return std::nullopt;
      bool escape = rest[i] == '\\' && i + 1 < rest.size();
      if (escape) i++;
      if (escape && rest[i] == 'n')
        value += '\n';
      else if (escape && rest[i] == 't')
        value += '\t';
      else if (!escape || rest[i] != '\n')
        value += rest[i];
    }
    return std::nullopt;
  }
  return std::nullopt;
}

// NAME = LITERAL at the beginning of a line.
Values python_values(std::string_view text, const std::string& path) {
  Values values;
  for (size_t at = 0; at < text.size();) {
    for (std::string_view name : {"user", "bot", "interface", "init_prompt"}) {
      if (!text.substr(at).starts_with(name)) continue;
      size_t equals = text.find_first_not_of(" \t", at + name.size());
      if (equals == std::string_view::npos || text[equals] != '=') continue;
      size_t begin = text.find_first_not_of(" \t", equals + 1);
      if (begin == std::string_view::npos) continue;
      auto value = literal(text, begin);
      if (!value) throw Error(fmt::format("{}: '{}' is not a string literal", path, name));
      values[std::string(name)] = *value;
      at = begin;
      break;
    }
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  return values;
}

Values json_values(std::string_view text, const std::string& path) {
  constexpr std::array<std::array<const char*, 2>, 4> names = {
      {{"user", "user"}, {"bot", "bot"}, {"separator", "interface"}, {"prompt", "init_prompt"}}};
  Json json = parse_json(text, path);
  Values values;
  for (const auto& [theirs, ours] : names) {
    const Json* value = json.find(theirs);
    if (value != nullptr && value->string() == nullptr) {
      throw Error(fmt::format("{}: '{}' is not a string", path, theirs));
    }
    if (value != nullptr) values[ours] = *value->string();
  }
  return values;
}

// Every line without blanks around it, as v2/chat.py reads it.
std::string stripped_lines(const std::string& text) {
  std::string result;
  for (size_t at = 0; at <= text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    result += clean_message(text.substr(at, end - at)) + "\n";
    at = end + 1;
  }
  size_t first = result.find_first_not_of('\n');
  if (first == std::string::npos) return "";
  return result.substr(first, result.find_last_not_of('\n') + 1 - first);
}

}  // namespace

PromptTemplate read_prompt_file(const std::string& path, const PromptTemplate& base) {
  MappedFile file = MappedFile::open(path);
  auto bytes = file.bytes();
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  bool json = text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size())).starts_with('{');
  Values values = json ? json_values(text, path) : python_values(text, path);
  for (const char* name : {"user", "bot", "init_prompt"}) {
    if (!values.contains(name))
      throw Error(fmt::format("{}: is not a prompt file: it does not set {}", path, name));
  }
  values.emplace("interface", ":");
  std::string prompt = stripped_lines(values["init_prompt"]);
  for (const auto& [name, value] : values) {
    if (name != "init_prompt") prompt = replaced(prompt, "{" + name + "}", value);
  }
  std::string message = fmt::format("{{user}}{0} {{text}}{1}{{bot}}{0}", values["interface"], turn_end);
  PromptTemplate form = template_of_names(base, values["user"], values["bot"], message);
  form.start = prompt.empty() ? "" : "\n" + prompt + std::string(turn_end);
  return form;
}

PromptTemplate template_of_names(const PromptTemplate& base, const std::string& user, const std::string& bot,
                                 const std::string& message) {
  PromptTemplate form = base;
  form.name = prompt_file_template;
  form.user = user;
  form.bot = bot;
  form.message = message;
  form.system.clear();
  form.start.clear();
  form.dialogue = form.clean = true;
  form.thinks = false;
  form.stop_texts = {std::string(turn_end)};
  return form;
}

}  // namespace rwkv::apps
