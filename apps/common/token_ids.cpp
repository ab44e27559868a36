#include "apps/common/token_ids.h"

#include <fmt/format.h>

#include <charconv>

#include "core/error.h"

namespace rwkv::apps {

std::vector<int32_t> parse_token_ids(std::string_view text, const std::string& where) {
  constexpr std::string_view between = " \t\r\n,";
  std::vector<int32_t> ids;
  size_t at = text.find_first_not_of(between);
  while (at != std::string_view::npos) {
    size_t end = std::min(text.find_first_of(between, at), text.size());
    int32_t id = 0;
    auto [stop, code] = std::from_chars(text.data() + at, text.data() + end, id);
    if (code != std::errc() || stop != text.data() + end) {
      throw Error(
          fmt::format("{}: byte {}: '{}' is no token id; ids are whole numbers with blanks between them",
                      where, at, printable(text.substr(at, end - at), 20)));
    }
    ids.push_back(id);
    at = text.find_first_not_of(between, end);
  }
  return ids;
}

}  // namespace rwkv::apps
