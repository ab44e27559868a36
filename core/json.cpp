#include "core/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "core/error.h"

namespace rwkv {
namespace {

Error invalid(const std::string& what, size_t position, const std::string& reason) {
  return Error(fmt::format("{}: not valid JSON at byte {}: {}", what, position, reason));
}

/// Receives the parser's events and builds the tree. `open_` holds the unfinished containers, outermost
/// first.
class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit TreeBuilder(const std::string& what) : what_(what) {}

  Json take_root() { return std::move(root_); }

  bool null() override { return add({nullptr}); }
  bool boolean(bool value) override { return add({value}); }
  bool number_integer(number_integer_t value) override {
    if (value >= 0) return add({static_cast<uint64_t>(value)});
    return add({static_cast<int64_t>(value)});
  }
  bool number_unsigned(number_unsigned_t value) override { return add({static_cast<uint64_t>(value)}); }
  bool number_float(number_float_t value, const string_t&) override { return add({value}); }
  bool string(string_t& value) override { return add({std::move(value)}); }
  bool binary(binary_t&) override { return false; }  // not in JSON

  bool start_object(size_t) override { return begin({Json::Object{}}); }
  bool start_array(size_t) override { return begin({Json::Array{}}); }
  bool key(string_t& name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool end_object() override {
    require_unique_keys(std::get<Json::Object>(open_.back().json.value));
    return end();
  }
  bool end_array() override { return end(); }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // The library's text begins with a number of its own, and often a line and a column.
    constexpr size_t longest_beginning = 60;
    std::string reason = error.what();
    for (std::string_view behind : {"] ", ": "}) {
      size_t start = reason.find(behind);
      if (start < longest_beginning) reason.erase(0, start + behind.size());
    }
    // `position` counts the bytes read, the offending one included.
    throw invalid(what_, position - (position > 0), printable(reason, 200));
  }

 private:
  static constexpr size_t max_depth = 64;
  static constexpr size_t max_values = 1'000'000;

  struct Container {
    Json json;
    std::string key;  ///< of the member that comes next
  };

  bool begin(Json&& container) {
    if (open_.size() == max_depth) {
      throw Error(fmt::format("{}: JSON nested deeper than {} levels", what_, max_depth));
    }
    open_.push_back({std::move(container), {}});
    return true;
  }

  bool end() {
    Json finished = std::move(open_.back().json);
    open_.pop_back();
    return add(std::move(finished));
  }

  bool add(Json&& json) {
    if (++values_ > max_values)
      throw Error(fmt::format("{}: JSON with more than {} values", what_, max_values));
    if (open_.empty()) {
      root_ = std::move(json);
    } else if (auto* object = std::get_if<Json::Object>(&open_.back().json.value)) {
      object->push_back({std::move(open_.back().key), std::move(json)});
    } else {
      std::get<Json::Array>(open_.back().json.value).push_back(std::move(json));
    }
    return true;
  }

  void require_unique_keys(const Json::Object& object) {
    std::vector<std::string_view> keys;
    for (const auto& [key, value] : object) keys.push_back(key);
    std::ranges::sort(keys);
    auto twice = std::ranges::adjacent_find(keys);
    if (twice == keys.end()) return;
    throw Error(fmt::format("{}: the key \"{}\" stands twice in a JSON object", what_, printable(*twice)));
  }

  const std::string& what_;
  Json root_;
  std::vector<Container> open_;
  size_t values_ = 0;
};

/// The library's text for a single value: quotes, escapes, shortest digits that read back the same.
template <class Value>
void append_scalar(std::string& out, const Value& value) {
  out += nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append(std::string& out, const Json& json) {
  const char* separator = "";
  if (const Json::Array* array = json.array()) {
    out += '[';
    for (const Json& element : *array) {
      out += separator;
      append(out, element);
      separator = ",";
    }
    out += ']';
  } else if (const Json::Object* object = json.object()) {
    out += '{';
    for (const auto& [key, value] : *object) {
      out += separator;
      append_scalar(out, key);
      out += ':';
      append(out, value);
      separator = ",";
    }
    out += '}';
  } else {
    std::visit(
        [&out](const auto& value) {
          using Value = std::remove_cvref_t<decltype(value)>;
          constexpr bool container =
              std::is_same_v<Value, Json::Array> || std::is_same_v<Value, Json::Object>;
          if constexpr (!container) append_scalar(out, value);
        },
        json.value);
  }
}

}  // namespace

const Json* Json::find(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  for (const auto& [name, member] : *members) {
    if (name == key) return &member;
  }
  return nullptr;
}

Json parse_json(std::string_view text, const std::string& what) {
  // The parser would take a zero byte for the end of the text.
  size_t zero = text.find('\0');
  if (zero != std::string_view::npos) throw invalid(what, zero, "a zero byte");
  TreeBuilder builder(what);
  nlohmann::json::sax_parse(text, &builder);
  return builder.take_root();
}

std::string to_string(const Json& json) {
  std::string out;
  append(out, json);
  return out;
}

}  // namespace rwkv
