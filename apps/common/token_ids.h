// Token ids as text: whole numbers with blanks or commas between them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rwkv::apps {

/// Throws Error that names `where` and the byte, for anything else.
std::vector<int32_t> parse_token_ids(std::string_view text, const std::string& where);

}  // namespace rwkv::apps
