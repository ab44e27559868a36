#include "apps/common/manual.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <sstream>

#include "apps/common/program.h"
#include "core/version.h"
#include "model/strategy.h"

namespace rwkv::apps {
namespace {

using Options = std::vector<const CLI::Option*>;

// An option of an empty group is hidden, as in --help.
Options options_of(const CLI::App& app, bool positional) {
  return app.get_options([positional](const CLI::Option* option) {
    return option->get_positional() == positional && !option->get_group().empty();
  });
}

std::vector<std::string> names_of(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const auto& name : option.get_snames()) names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

bool takes_value(const CLI::Option& option) { return option.get_expected_max() > 0; }

bool takes_several(const CLI::Option& option) {
  return option.get_expected_max() >= CLI::detail::expected_max_vector_size;
}

// CLI11 names a type and what it is checked for in one: "INT:INT in [1 - 1024]" is INT and 1..1024.
struct ValueType {
  std::string name, allowed;
};

ValueType value_type(const CLI::Option& option) {
  std::string text = option.get_type_name();
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return {text, ""};
  ValueType type = {text.substr(0, colon), text.substr(colon + 1)};
  const std::string range = type.name + " in [";
  if (type.allowed.starts_with(range) && type.allowed.ends_with(']')) {
    type.allowed = type.allowed.substr(range.size(), type.allowed.size() - range.size() - 1);
    if (size_t dash = type.allowed.find(" - "); dash != std::string::npos)
      type.allowed.replace(dash, 3, "..");
  }
  return type;
}

// --- The manual page ---

// Text that roff shows as it is: quotes straight, hyphens such that they can be copied to a command line.
std::string escaped(std::string_view text) {
  constexpr std::string_view special = "\\-'`^~";
  constexpr const char* escapes[] = {"\\e", "\\-", "\\(aq", "\\(ga", "\\(ha", "\\(ti"};
  std::string result = text.starts_with('.') ? "\\&" : "";
  for (char c : text) {
    const size_t at = special.find(c);
    result += at == std::string_view::npos ? std::string(1, c) : escapes[at];
  }
  return result;
}

std::string bold(std::string_view text) { return "\\fB" + escaped(text) + "\\fR"; }
std::string italic(std::string_view text) { return "\\fI" + escaped(text) + "\\fR"; }
std::string entry(const std::string& term, const std::string& text) {
  return ".TP\n" + term + "\n" + text + "\n";
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string summary(const std::string& description) {
  std::string text = description.substr(0, std::min(description.find(": "), description.find(". ")));
  if (text.ends_with('.')) text.pop_back();
  if (text.size() > 1 && std::islower(static_cast<unsigned char>(text[1])) != 0) {
    text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  return text;
}

// "--tokens TEXT", of a positional "MODEL".
std::string usage_of(const CLI::Option& option) {
  std::string text;
  if (option.get_positional()) {
    text = italic(option.get_name(true));
  } else {
    for (const auto& name : names_of(option)) text += (text.empty() ? "" : ", ") + bold(name);
    if (takes_value(option)) text += " " + italic(value_type(option).name);
  }
  return text + (takes_several(option) ? " ..." : "");
}

std::string synopsis(const CLI::App& app) {
  std::string text = bold(app.get_name()) + " [" + italic("OPTIONS") + "]";
  for (const auto* option : options_of(app, false)) {
    if (option->get_required()) text += " " + usage_of(*option);
  }
  for (const auto* option : options_of(app, true)) {
    text += option->get_required() ? " " + usage_of(*option) : " [" + usage_of(*option) + "]";
  }
  return text;
}

// " Not with --load." and the like. The set's own order is that of addresses.
std::string relation(const char* words, const std::set<CLI::Option*>& others) {
  std::vector<std::string> names;
  for (const auto* other : others) names.push_back(other->get_name());
  std::sort(names.begin(), names.end());
  return names.empty() ? "" : fmt::format(" {} {}.", words, fmt::join(names, ", "));
}

std::string described(const CLI::Option& option) {
  std::string allowed = value_type(option).allowed;
  if (!allowed.empty())
    allowed = allowed.starts_with('{') ? " " + allowed : " (" + CLI::detail::to_lower(allowed) + ")";
  std::string text = one_line(option.get_description());
  if (!text.empty() && !text.ends_with('.')) text += '.';
  if (option.get_required()) text += " Required.";
  text += relation("Not with", option.get_excludes()) + relation("Only with", option.get_needs());
  return entry(usage_of(option) + escaped(allowed), escaped(text));
}

std::string section(const char* name, const std::string& text) {
  return fmt::format(".SH {}\n{}{}", name, text, text.ends_with('\n') ? "" : "\n");
}

std::string example_lines(const std::string& examples) {
  std::string text = ".nf\n", line;
  for (std::istringstream lines(examples); std::getline(lines, line);) {
    text += escaped(line.substr(std::min(line.size(), line.find_first_not_of(' ')))) + "\n";
  }
  return text + ".fi\n";
}

std::string exit_status() {
  return entry(bold("0"), "Success.") +
         entry(bold(std::to_string(exit_error)), "An error; one line on standard error says which.") +
         entry(bold(std::to_string(exit_usage)), "A wrong command line.");
}

std::string environment() {
  return entry(bold("RWKV_CPU"),
               "An instruction set, such as scalar or avx2, in place of the best one that this machine has. "
               "Another name is an error that lists those there are.") +
         entry(bold("NO_COLOR") + ", " + bold("TERM"),
               "There are no colours on a terminal when NO_COLOR is not empty or TERM is dumb.") +
         entry(
             bold("HOME") + ", " + bold("XDG_STATE_HOME") + ", " + bold("XDG_DATA_HOME"),
             "A chat keeps the lines typed in XDG_STATE_HOME/rwkv (~/.local/state/rwkv) and its sessions in "
             "XDG_DATA_HOME/rwkv/sessions (~/.local/share/rwkv/sessions).");
}

std::string files() {
  return "PREFIX is where the programs are installed, such as /usr/local.\n" +
         entry(italic("PREFIX/share/rwkv/"), "Vocabularies for checkpoints, which hold none.") +
         entry(italic("PREFIX/share/doc/rwkv/README.md"), "Strategies, accuracy, speed, and all programs.");
}

// --- Completion ---

std::vector<std::string> strategies() {
  std::vector<std::string> names;
  for (auto device : {DeviceKind::cpu, DeviceKind::cuda}) {
    for (auto quantization : {Quantization::none, Quantization::int8, Quantization::int4}) {
      for (auto type : {DType::f32, DType::bf16, DType::f16}) {
        Segment segment;
        segment.device = device;
        segment.type = type;
        segment.quantization = quantization;
        names.push_back(to_string(Strategy{{segment}}));
      }
    }
  }
  return names;
}

std::vector<std::string> suggestions(const CLI::Option& option) {
  const ValueType type = value_type(option);
  if (type.allowed.starts_with('{') && type.allowed.ends_with('}')) {
    return CLI::detail::split(type.allowed.substr(1, type.allowed.size() - 2), ',');
  }
  std::vector<std::string> words;
  for (const auto& word : CLI::detail::split(type.name, '|')) {
    if (word == "STRATEGY") {
      for (const auto& strategy : strategies()) words.push_back(strategy);
    } else if (std::islower(static_cast<unsigned char>(word.front())) != 0) {
      words.push_back(word);
    }
  }
  return words;
}

bool is_number(const CLI::Option& option) {
  const std::string name = value_type(option).name;
  return name == "INT" || name == "UINT" || name == "FLOAT" || name == "NUMBER";
}

// Words as the value of a variable of the script.
std::string assignment(const std::vector<std::string>& words) {
  return fmt::format("values=$'{}'", fmt::join(words, "\\n"));
}

// The script's case for options that take values: one branch for those of which the same is to be offered.
std::string branches(const CLI::App& app) {
  std::map<std::string, std::vector<std::string>> options;
  for (const auto* option : options_of(app, false)) {
    if (!takes_value(*option)) continue;
    const auto words = suggestions(*option);
    auto& same = options[!words.empty()       ? assignment(words)
                         : is_number(*option) ? "compopt +o default; return"
                                              : "return"];
    for (const auto& name : names_of(*option)) same.push_back(name);
  }
  std::string text;
  for (const auto& [action, names] : options) {
    text += fmt::format("    {}) {} ;;\n", fmt::join(names, " | "), action);
  }
  return text;
}

}  // namespace

std::string manual_page(const CLI::App& app, const std::string& examples,
                        const std::vector<std::string>& see_also) {
  std::string title = app.get_name(), others, options;
  std::transform(title.begin(), title.end(), title.begin(), [](unsigned char c) { return std::toupper(c); });
  for (const auto& page : see_also) {
    if (page != app.get_name()) others += (others.empty() ? "" : ",\n") + bold(page) + "(1)";
  }
  for (const auto* option : options_of(app, true)) options += described(*option);
  for (const auto* option : options_of(app, false)) options += described(*option);
  const std::string description = one_line(app.get_description());
  return fmt::format(".TH {} 1 \"\" \"rwkv {}\" \"User Commands\"\n.ad l\n.nh\n", title, version) +
         section("NAME", escaped(app.get_name()) + " \\- " + escaped(summary(description))) +
         section("SYNOPSIS", synopsis(app)) + section("DESCRIPTION", escaped(description)) +
         section("OPTIONS", options) + section("EXAMPLES", example_lines(examples)) +
         section("EXIT STATUS", exit_status()) + section("ENVIRONMENT", environment()) +
         section("FILES", files()) + (others.empty() ? "" : section("SEE ALSO", others));
}

std::string bash_completion(const CLI::App& app) {
  std::string function = "_" + app.get_name();
  std::replace(function.begin(), function.end(), '-', '_');
  std::vector<std::string> names, words;
  for (const auto* option : options_of(app, false)) {
    for (const auto& name : names_of(*option)) names.push_back(name);
  }
  for (const auto* option : options_of(app, true)) {
    for (const auto& word : suggestions(*option)) words.push_back(word);
  }
  // Of --option=value bash makes three words. Of a list with commas the last part is completed.
  return fmt::format(R"(# Completion of {0} in bash, written by {0} --bash-completion.
{1}() {{
  local IFS=$'\n' word=${{2//\\/}} before=$3 values
  [ "$before" != = ] || before=${{COMP_WORDS[COMP_CWORD - 2]}}
  COMPREPLY=()
  case $before in
{2}    *) case $word in
      -*) {3} ;;
      *) {4} ;;
    esac ;;
  esac
  mapfile -t COMPREPLY < <(compgen -P "${{word%"${{word##*,}}"}}" -W "$values" -- "${{word##*,}}")
  # What has blanks is then quoted.
  compopt -o filenames
}}
complete -o default -F {1} {0}
)",
                     app.get_name(), function, branches(app), assignment(names), assignment(words));
}

}  // namespace rwkv::apps
