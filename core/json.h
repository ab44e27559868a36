// JSON values, for the header of tensor files, vocabularies and machine-readable reports.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rwkv {

struct JsonMember;

struct Json {
  using Array = std::vector<Json>;
  using Object = std::vector<JsonMember>;  ///< in the order of the text
  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object> value;

  [[nodiscard]] const Object* object() const { return std::get_if<Object>(&value); }
  [[nodiscard]] const Array* array() const { return std::get_if<Array>(&value); }
  [[nodiscard]] const std::string* string() const { return std::get_if<std::string>(&value); }
  /// A whole number that is not negative, or nullptr.
  [[nodiscard]] const uint64_t* unsigned_number() const { return std::get_if<uint64_t>(&value); }
  /// The member of an object, or nullptr.
  [[nodiscard]] const Json* find(std::string_view key) const;
};

struct JsonMember {
  std::string key;
  Json value;
};

/// Throws Error, with the byte offset, for text that is not JSON (UTF-8), for a key that stands twice in an
/// object, for nesting deeper than 64, and for more than a million values. `what` begins the message.
Json parse_json(std::string_view text, const std::string& what);

/// On one line. Strings that are not UTF-8 have the bad bytes replaced by U+FFFD.
std::string to_string(const Json& json);

}  // namespace rwkv
