#include "model/text/prompt_template.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv {
namespace {

constexpr std::string_view translate_prefix = "translate:";
constexpr std::string_view dialogue_form = "{user}: {text}\n\n{bot}:";

constexpr std::string_view world_start =
    "{user}: hi\n\n{bot}: Hi. I am your assistant and I will provide expert full response in full details. "
    "Please feel free to ask any question and I will always answer it.\n\n";
constexpr std::string_view raven_start =
    "\nThe following is a detailed conversation between {user} and {bot}, who knows a lot, is friendly and "
    "gives helpful and informative answers.\n\n";

SamplerOptions sampling(float temperature, float top_p, float presence, float frequency,
                        float decay = 0.996f) {
  SamplerOptions options;
  options.temperature = temperature;
  options.top_p = top_p;
  options.presence_penalty = presence;
  options.frequency_penalty = frequency;
  options.penalty_decay = decay;
  return options;
}

PromptTemplate dialogue(std::string name, std::string description, std::string user, std::string bot,
                        std::string_view start, const SamplerOptions& sampling) {
  PromptTemplate form;
  form.name = std::move(name);
  form.description = std::move(description);
  form.user = std::move(user);
  form.bot = std::move(bot);
  form.message = dialogue_form;
  form.start = start;
  form.sampling = sampling;
  return form;
}

PromptTemplate single(std::string name, std::string description, std::string user, std::string_view message,
                      std::vector<std::string> stop_texts, const SamplerOptions& sampling) {
  PromptTemplate form;
  form.name = std::move(name);
  form.description = std::move(description);
  form.user = std::move(user);
  form.message = message;
  form.dialogue = false;
  form.stop_texts = std::move(stop_texts);
  form.sampling = sampling;
  return form;
}

PromptTemplate g1() {
  PromptTemplate form = dialogue("g1", "RWKV-7 G0 and G1: with a system text and thinking", "User",
                                 "Assistant", "", sampling(1, 0.5f, 2, 0.1f, 0.99f));
  form.system = "System: {text}\n\n";
  form.end_of_text_first = true;
  form.thinks = true;
  form.stop_texts = {"\n\nUser:"};  // an answer may hold empty lines
  return form;
}

std::vector<PromptTemplate> make_table() {
  SamplerOptions greedy = sampling(0, 0, 0, 0);
  std::vector<PromptTemplate> table = {
      dialogue("world", "World models of RWKV-5, 6 and 7", "User", "Assistant", world_start,
               sampling(1, 0.3f, 0.5f, 0.5f)),
      g1(),
      dialogue("qa", "World models of RWKV-4", "Question", "Answer", "", sampling(1, 0.2f, 0.4f, 0.4f)),
      dialogue("raven", "Raven models of RWKV-4", "Bob", "Alice", raven_start,
               sampling(1.2f, 0.5f, 0.4f, 0.4f)),
      single("instruction", "one task at a time, for World models", "Instruction",
             "Instruction: {text}\n\nResponse:", {"\n\n"}, sampling(1, 0.2f, 0.4f, 0.4f)),
      single("raw", "the text goes on: Pile models, stories, code", "Text", "{text}", {},
             sampling(1, 0.85f, 0.2f, 0.2f)),
      single("fim", "fills in where the text says <fill>, for G1c models and newer", "Text",
             "\u273fprefix\u273f\u273fsuffix\u273f{suffix}\u273fmiddle\u273f{prefix}", {"\u273f"},
             sampling(1, 0.2f, 0, 0)),
      single("translate:FROM-TO", "translates between two languages, such as translate:English-Chinese",
             "FROM", dialogue_form, {"\n\n"}, greedy),
  };
  table.back().bot = "TO";
  for (PromptTemplate& form : table) form.clean = form.name != "raw" && form.name != "fim";
  return table;
}

// Each {name} of the pattern that is in the list becomes its value; a value is not looked into.
std::string filled(std::string_view pattern,
                   const std::vector<std::pair<std::string_view, std::string_view>>& values) {
  std::string text;
  for (size_t at = 0; at < pattern.size();) {
    auto found =
        std::ranges::find_if(values, [&](const auto& v) { return pattern.substr(at).starts_with(v.first); });
    if (found == values.end()) {
      text += pattern[at++];
    } else {
      text += found->second;
      at += found->first.size();
    }
  }
  return text;
}

// The characters that Python's str.strip() removes.
bool is_blank(char32_t code) {
  return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 || code == 0xa0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

std::string_view strip(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    Utf8Char c = read_utf8(text.substr(at));
    if (c.kind != Utf8Char::Kind::whole || !is_blank(c.code)) {
      if (begin == text.size()) begin = at;
      end = at + c.length;
    }
    at += c.length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

// "-g0", "-g1", "_g1f": G models, in lower case.
bool names_g_model(std::string_view name) {
  for (size_t at = 0; at + 2 < name.size(); at++) {
    bool mark = (name[at] == '-' || name[at] == '_') && name[at + 1] == 'g' &&
                (name[at + 2] == '0' || name[at + 2] == '1');
    bool ends = at + 3 == name.size() || std::isdigit(static_cast<unsigned char>(name[at + 3])) == 0;
    if (mark && ends) return true;
  }
  return false;
}

// A date of eight digits in the name, such as 20250127, or 0.
int date_in(std::string_view name) {
  for (size_t at = 0; at + 8 <= name.size(); at++) {
    std::string_view digits = name.substr(at, 8);
    if (digits.starts_with("20") &&
        std::ranges::all_of(digits, [](unsigned char c) { return std::isdigit(c) != 0; })) {
      return std::stoi(std::string(digits));
    }
  }
  return 0;
}

struct ThinkForm {
  Think think;
  std::string_view name, wish, opener;
};

// No '>' behind the openers: the model's next token may hold it and more.
constexpr std::array<ThinkForm, 5> think_forms = {{
    {Think::off, "off", "", ""},
    {Think::fast, "fast", "", " <think></think"},
    {Think::on, "on", "", " <think"},
    {Think::a_bit, "short", " (think a bit)", " <think"},
    {Think::a_lot, "long", " (think a lot)", " <think"},
}};

const ThinkForm& form_of(Think think) { return think_forms[static_cast<size_t>(think)]; }

}  // namespace

std::span<const PromptTemplate> prompt_templates() {
  static const std::vector<PromptTemplate> table = make_table();
  return table;
}

PromptTemplate find_prompt_template(std::string_view name) {
  auto table = prompt_templates();
  if (name.starts_with(translate_prefix)) {
    std::string_view languages = name.substr(translate_prefix.size());
    size_t dash = languages.find('-');
    bool two = dash != std::string_view::npos && dash > 0 && dash + 1 < languages.size();
    if (!two)
      throw Error(
          fmt::format("template '{}': name two languages, as in translate:English-German", printable(name)));
    PromptTemplate form = table.back();
    form.name = name;
    form.user = languages.substr(0, dash);
    form.bot = languages.substr(dash + 1);
    return form;
  }
  std::vector<std::string_view> names;
  for (const PromptTemplate& form : table) {
    if (form.name == name) return form;
    names.push_back(form.name);
  }
  throw Error(
      fmt::format("there is no template '{}': give one of {}", printable(name), fmt::join(names, ", ")));
}

PromptTemplate choose_prompt_template(std::string_view source, Version version, int64_t n_vocab) {
  constexpr int64_t world_vocabulary = 65536, pile_vocabulary = 50277;
  constexpr int first_g_date = 20250701;  // checkpoints of RWKV-7 after World v3 are of the G series
  std::string name(source);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (n_vocab == pile_vocabulary) {
    return find_prompt_template(name.find("raven") == std::string::npos ? "raw" : "raven");
  }
  if (version == Version::v4) return find_prompt_template("qa");
  bool g_model =
      version == Version::v7 && n_vocab == world_vocabulary &&
      (names_g_model(name) || (date_in(name) >= first_g_date && name.find("world") == std::string::npos));
  return find_prompt_template(g_model ? "g1" : "world");
}

std::string start_text(const PromptTemplate& form, std::string_view system) {
  if (!system.empty() && form.system.empty()) {
    throw Error(fmt::format("the template '{}' takes no system text; g1 does", form.name));
  }
  std::string text = system.empty() ? std::string() : filled(form.system, {{"{text}", system}});
  return text + filled(form.start, {{"{user}", form.user}, {"{bot}", form.bot}});
}

std::string message_text(const PromptTemplate& form, std::string_view text) {
  std::string_view prefix, suffix;
  if (form.message.find("{suffix}") != std::string::npos) {
    size_t mark = text.find(fill_mark);
    if (mark == std::string_view::npos) {
      throw Error(fmt::format("the text has no {}, which says where to fill in", fill_mark));
    }
    prefix = text.substr(0, mark);
    suffix = text.substr(mark + fill_mark.size());
  }
  return filled(form.message, {{"{user}", form.user},
                               {"{bot}", form.bot},
                               {"{text}", text},
                               {"{prefix}", prefix},
                               {"{suffix}", suffix}});
}

std::string clean_message(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    if (text[i] == '\n' && clean.ends_with('\n')) continue;
    clean += text[i];
  }
  return std::string(strip(clean));
}

Think find_think(std::string_view name) {
  for (const ThinkForm& form : think_forms) {
    if (form.name == name) return form.think;
  }
  throw Error(
      fmt::format("there is no way '{}' to think: give off, fast, on, short or long", printable(name)));
}

std::string_view name_of(Think think) { return form_of(think).name; }
std::string_view think_wish(Think think) { return form_of(think).wish; }
std::string_view think_opener(Think think) { return form_of(think).opener; }

}  // namespace rwkv
