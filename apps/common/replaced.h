// Text with every occurrence of some words replaced.
#pragma once

#include <string>
#include <string_view>

namespace rwkv::apps {

/// `from` must not be empty. What was put in is not looked into.
inline std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    bool here = text.substr(at).starts_with(from);
    result += here ? to : text.substr(at, 1);
    at += here ? from.size() : 1;
  }
  return result;
}

}  // namespace rwkv::apps
