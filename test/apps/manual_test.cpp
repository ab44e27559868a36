// The manual pages and the completion, which programs make of their options.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>

#include "test/apps/process.h"
#include "test/model/checkpoint/build.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

namespace fs = std::filesystem;

std::string source_path(const std::string& name) { return data_path("../../" + name); }

// "apps/chat" and so on: what the Makefile links.
std::vector<std::string> all_programs() {
  std::vector<std::string> names;
  for (const char* folder : {"apps", "tools"}) {
    for (const auto& entry : fs::directory_iterator(source_path(folder))) {
      if (entry.path().extension() == ".cpp" && contains(read_file(entry.path()), "\nint main(")) {
        names.push_back(std::string(folder) + "/" + entry.path().stem().string());
      }
    }
  }
  return names;
}

std::string installed_name(const std::string& program) {
  std::string name = fs::path(program).filename();
  return name.starts_with("rwkv-") ? name : "rwkv-" + name;
}

std::string output_of(const std::string& program, const Arguments& arguments) {
  Arguments command = {program_path(program)};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Result r = run_program(command);
  CHECK(r.status == 0);
  CHECK(r.errors == "");
  return r.output;
}

std::set<std::string> matches(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern);
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), expression), end; it != end; ++it) {
    found.insert((*it)[1]);
  }
  return found;
}

// The options that --help lists.
std::set<std::string> options_of(const std::string& program) {
  return matches(output_of(program, {"--help"}), "\n  (?:-[a-z],)?(--[a-z-]+)");
}

// What a terminal would show of the page, without the emphasis.
std::string page_of(const std::string& program) {
  std::string page = output_of(program, {"--man", "rwkv-other"});
  page = std::regex_replace(page, std::regex(R"(\\f[BIR])"), "");
  return std::regex_replace(page, std::regex(R"(\\-)"), "-");
}

// What bash completes the last word of a command line to, each on a line.
std::string completions(const std::string& program, const Arguments& words) {
  TemporaryDirectory directory;
  std::string name = installed_name(program), function = "_" + name;
  std::replace(function.begin(), function.end(), '-', '_');
  write_file(directory / "script", output_of(program, {"--bash-completion"}));
  // What the function does to readline has no meaning here.
  const std::string call = "compopt() { :; }; . \"$1\"; COMP_WORDS=(\"${@:2}\"); COMP_CWORD=$(($# - 2)); " +
                           function +
                           " \"$2\" \"${@: -1}\" \"${@: -2:1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
  Arguments command = {"/bin/bash", "-euc", call, "bash", directory / "script", name};
  command.insert(command.end(), words.begin(), words.end());
  Result r = run_program(command);
  CHECK(r.status == 0);
  CHECK(r.errors == "");
  return r.output;
}

}  // namespace

TEST_CASE("a manual page has each option of --help, and all sections") {
  CHECK(all_programs().size() >= 7);
  for (const auto& program : all_programs()) {
    CAPTURE(program);
    const std::string page = page_of(program), name = installed_name(program);
    const std::set<std::string> options = options_of(program);
    CHECK(options.size() >= 3);
    for (const auto& option : options) {
      CHECK_MESSAGE(matches(page, "\n\\.TP\n(?:-[a-z], )?(" + option + ")[ \n]").size() == 1, option);
    }
    CHECK(matches(page, "\n\\.SH ([A-Z ]+)") == std::set<std::string>{"NAME", "SYNOPSIS", "DESCRIPTION",
                                                                      "OPTIONS", "EXAMPLES", "EXIT STATUS",
                                                                      "ENVIRONMENT", "FILES", "SEE ALSO"});
    CHECK(contains(page, ".SH NAME\n" + name + " - "));
    CHECK(contains(page, ".SH SYNOPSIS\n" + name + " ["));
    CHECK(contains(page, ".SH SEE ALSO\nrwkv-other(1)"));
    CHECK(matches(page, "\\.nf\n(?:.*[ |])?(" + name + ")").size() == 1);
  }
}

TEST_CASE("manual pages are such that groff has nothing to say") {
  for (const auto& program : all_programs()) {
    Result r = run_program({"/bin/sh", "-c", "command -v groff >/dev/null || exit 0; exec groff -man -ww -z"},
                           output_of(program, {"--man"}));
    CHECK(r.status == 0);
    CHECK_MESSAGE(r.errors == "", program);
  }
}

TEST_CASE("manual pages name every variable that programs read") {
  const std::string page = page_of("apps/chat");
  std::set<std::string> variables;
  for (const char* folder : {"apps", "tools", "core", "ops", "cpu", "tokenizer", "model"}) {
    for (const auto& entry : fs::recursive_directory_iterator(source_path(folder))) {
      if (entry.path().extension() == ".cpp") {
        variables.merge(matches(read_file(entry.path()), "getenv\\(\"([A-Z_]+)\"\\)"));
      }
    }
  }
  CHECK(variables.size() >= 3);
  for (const auto& variable : variables) CHECK_MESSAGE(contains(page, variable), variable);
}

TEST_CASE("bash completes the options of every program") {
  for (const auto& program : all_programs()) {
    CAPTURE(program);
    const std::string offered = "\n" + completions(program, {"--"});
    for (const auto& option : options_of(program))
      CHECK_MESSAGE(contains(offered, "\n" + option + "\n"), option);
  }
}

TEST_CASE("bash completes options, strategies, sets of values and lists of them") {
  CHECK(completions("apps/chat", {"--str"}) == "--strategy\n");
  CHECK(completions("apps/chat", {"model.rwkv", "--strategy", "cpu fp16i"}) == "cpu fp16i8\ncpu fp16i4\n");
  CHECK(completions("apps/chat", {"--strategy", "=", "au"}) == "auto\n");
  CHECK(completions("apps/chat", {"--strategy", "cuda\\ fp32i8"}) == "cuda fp32i8\n");
  CHECK(completions("tools/rwkv-convert", {"--strategy", "au"}) == "\n");
  CHECK(completions("apps/chat", {"--vocab", "--str"}) == "\n");
  CHECK(completions("apps/chat", {"mod"}) == "\n");
  CHECK(completions("tools/bench-ops", {"wkv"}) == "wkv4\nwkv5\nwkv7\n");
  CHECK(completions("tools/bench-ops", {"--types", "bf16,in"}) == "bf16,int8\nbf16,int4\n");
}

TEST_CASE("a program that was started by its installed name calls itself so") {
  TemporaryDirectory directory;
  const std::string built = program_path("apps/perplexity"), installed = directory / "rwkv-perplexity";
  fs::create_symlink(built, installed);
  CHECK(run_program({installed, "--version"}).output.starts_with("rwkv-perplexity "));
  CHECK(contains(run_program({installed, "--help"}).output, "\n  rwkv-perplexity model.rwkv book.txt\n"));
  // One mistake that CLI11 finds and one that the program finds.
  for (const char* argument : {"--no-such-flag", "model"}) {
    CHECK(run_program({installed, argument}).errors.ends_with("; see rwkv-perplexity --help\n"));
    CHECK(run_program({built, argument}).errors.ends_with("; see perplexity --help\n"));
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
