// The manual page of a program and its completion in bash, made of what CLI11 knows of its options, so that
// they say what --help says.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace rwkv::apps {

/// The manual page in the macros of man(7). The description's first sentence, or what stands before its first
/// colon, is the line that apropos(1) shows; `see_also` names other pages, the page's own name is left out.
std::string manual_page(const CLI::App& app, const std::string& examples,
                        const std::vector<std::string>& see_also);

/// A script that bash reads. Offered are options, and as their values the words of a set such as {bf16,int8},
/// the small letters of a type such as auto|STRATEGY, strategies for STRATEGY, nothing for numbers and files
/// for the rest.
std::string bash_completion(const CLI::App& app);

}  // namespace rwkv::apps
