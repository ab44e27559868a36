#include "tokenizer/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"
#include "tokenizer/utf8.h"

namespace rwkv {

namespace {

/// One line while it is read: what is left of it, and where it stands.
struct Line {
  std::string_view rest;
  const std::string& path;
  size_t number;

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}: line {}: {}", path, number, what));
  }

  char take() {
    const char c = rest.front();
    rest.remove_prefix(1);
    return c;
  }
};

/// A decimal number at the front of the line.
int64_t take_number(Line& line, const char* name) {
  int64_t number = 0;
  const char* end = line.rest.data() + line.rest.size();
  const auto [after, error] = std::from_chars(line.rest.data(), end, number);
  if (error == std::errc::result_out_of_range) line.fail(fmt::format("the {} is too large", name));
  if (error != std::errc()) {
    line.fail(fmt::format("the {} is missing: a line is ID LITERAL LENGTH, such as 33 ' ' 1", name));
  }
  line.rest.remove_prefix(static_cast<size_t>(after - line.rest.data()));
  return number;
}

void take_space(Line& line, const char* after) {
  if (line.rest.empty() || line.take() != ' ') line.fail(fmt::format("one space must follow the {}", after));
}

/// `digits` digits of a base at the front of the line.
uint32_t take_digits(Line& line, size_t digits, int base, std::string_view escape) {
  const std::string_view field = line.rest.substr(0, digits);
  uint32_t code = 0;
  const char* end = field.data() + field.size();
  const auto [after, error] = std::from_chars(field.data(), end, code, base);
  if (field.size() != digits || error != std::errc() || after != end) {
    line.fail(fmt::format("bad escape \\{}: it takes {} digits of base {}", escape, digits, base));
  }
  line.rest.remove_prefix(digits);
  return code;
}

/// The code that an escape stands for; the backslash is taken already.
uint32_t take_escape(Line& line, bool is_bytes) {
  if (line.rest.empty()) line.fail("the literal has no closing quote");
  const char c = line.take();
  switch (c) {
    case '\\':
    case '\'':
    case '"':
      return static_cast<unsigned char>(c);
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'v':
      return '\v';
    case 'x':
      return take_digits(line, 2, 16, "x");
    default:
      break;
  }
  if (c == 'u' && !is_bytes) return take_digits(line, 4, 16, "u");
  if (c == 'U' && !is_bytes) return take_digits(line, 8, 16, "U");
  if (c < '0' || c > '7') {
    line.fail(fmt::format("bad escape \\{} in a {} literal", printable({&c, 1}), is_bytes ? "bytes" : "str"));
  }
  uint32_t code = static_cast<uint32_t>(c - '0');
  for (int i = 1; i < 3 && !line.rest.empty() && line.rest[0] >= '0' && line.rest[0] <= '7'; i++) {
    code = code * 8 + static_cast<uint32_t>(line.take() - '0');
  }
  if (code > 255) line.fail("bad escape: octal above \\377");
  return code;
}

void append_escape(Line& line, bool is_bytes, std::string& bytes) {
  const uint32_t code = take_escape(line, is_bytes);
  if (is_bytes) {
    bytes += static_cast<char>(static_cast<unsigned char>(code));
  } else if (code >= 0xd800 && code <= 0xdfff) {
    line.fail(fmt::format("U+{:04X} is a surrogate, which UTF-8 has no bytes for", code));
  } else if (code > 0x10ffff) {
    line.fail("bad escape: code above U+10FFFF");
  } else {
    append_utf8(code, bytes);
  }
}

/// A character that stands for itself.
void append_plain(Line& line, bool is_bytes, std::string& bytes) {
  const Utf8Char c = read_utf8(line.rest);
  if (c.kind != Utf8Char::Kind::whole) line.fail("not UTF-8: write single bytes as b'\\xNN'");
  if (is_bytes && c.code > 0x7f)
    line.fail("a bytes literal takes only ASCII characters: write others as \\xNN");
  if (c.code == 0 || c.code == '\r') line.fail("a bare NUL or CR in the literal: write it as \\x00 or \\r");
  bytes.append(line.rest.substr(0, c.length));
  line.rest.remove_prefix(c.length);
}

/// The bytes that the literal at the front of the line stands for, in `bytes`.
void take_literal(Line& line, std::string& bytes) {
  const bool is_bytes = line.rest.starts_with('b');
  if (is_bytes) line.take();
  if (!line.rest.starts_with('\'') && !line.rest.starts_with('"')) {
    line.fail("the token must be a literal: '...' or \"...\" or b'...'");
  }
  const char quote = line.take();
  bytes.clear();
  while (true) {
    if (line.rest.empty()) line.fail("the literal has no closing quote");
    const char c = line.rest.front();
    if (c == quote) break;
    if (c == '\\') {
      line.take();
      append_escape(line, is_bytes, bytes);
    } else if (c >= ' ') {  // printable ASCII, the common case
      bytes += line.take();
    } else {
      append_plain(line, is_bytes, bytes);
    }
  }
  line.take();
}

/// Reads one line; the id, and the bytes in `bytes`.
int32_t read_line(Line line, std::string& bytes) {
  const int64_t id = take_number(line, "id");
  if (id < 1 || id > Vocabulary::max_id) {
    line.fail(fmt::format("id {} is outside 1 to {}", id, Vocabulary::max_id));
  }
  take_space(line, "id");
  take_literal(line, bytes);
  take_space(line, "literal");
  const int64_t length = take_number(line, "length");
  if (!line.rest.empty()) line.fail("something follows the length");
  if (bytes.empty()) line.fail("the token is empty");
  if (bytes.size() > Vocabulary::max_token_bytes) {
    line.fail(fmt::format("the token has {} bytes: at most {} are allowed", bytes.size(),
                          Vocabulary::max_token_bytes));
  }
  if (length != static_cast<int64_t>(bytes.size())) {
    line.fail(fmt::format("the length is given as {} but the token has {} bytes", length, bytes.size()));
  }
  return static_cast<int32_t>(id);
}

void refuse_encodings(std::string_view text, const std::string& path) {
  if (text.empty()) throw Error(path + ": the vocabulary is empty");
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    throw Error(path + ": line 1: UTF-16 text: save the vocabulary as UTF-8");
  }
  if (text.starts_with("\xef\xbb\xbf")) {
    throw Error(path + ": line 1: begins with a byte order mark: save the vocabulary as UTF-8 without one");
  }
}

void require_single_bytes(const Vocabulary& tokens, const std::string& path) {
  std::array<bool, 256> present{};
  for (int32_t id = 0; id < tokens.size(); id++) {
    const std::string_view bytes = tokens.bytes(id);
    if (bytes.size() == 1) present[static_cast<unsigned char>(bytes[0])] = true;
  }
  for (size_t byte = 0; byte < present.size(); byte++) {
    if (!present[byte]) {
      throw Error(
          fmt::format("{}: no token stands for the single byte {:02x}, so not every text could be encoded:"
                      " add a line for it",
                      path, byte));
    }
  }
}

void refuse_equal_tokens(const WorldVocabulary& vocabulary, const std::vector<size_t>& line_of_id,
                         const std::string& path) {
  const auto bytes = [&](int32_t id) { return vocabulary.tokens.bytes(id); };
  const auto twice = std::adjacent_find(vocabulary.sorted_ids.begin(), vocabulary.sorted_ids.end(),
                                        [&](int32_t a, int32_t b) { return bytes(a) == bytes(b); });
  if (twice == vocabulary.sorted_ids.end()) return;
  const auto [first, second] =
      std::minmax(line_of_id[static_cast<size_t>(twice[0])], line_of_id[static_cast<size_t>(twice[1])]);
  throw Error(fmt::format("{}: line {}: the same token as in line {}", path, second, first));
}

/// The first 8 bytes as a number that sorts as they do.
uint64_t prefix_of(std::string_view bytes) {
  uint64_t prefix = 0;
  for (size_t i = 0; i < 8; i++) {
    prefix = prefix << 8 | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u);
  }
  return prefix;
}

}  // namespace

bool Vocabulary::add(int32_t id, std::string_view bytes) {
  if (id >= size()) pieces_.resize(static_cast<size_t>(id) + 1);
  Piece& piece = pieces_[static_cast<size_t>(id)];
  if (piece.length != 0) return false;
  piece = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(bytes.size())};
  text_ += bytes;
  return true;
}

std::vector<int32_t> Vocabulary::sorted_ids() const {
  struct Entry {
    uint64_t prefix;
    int32_t id;
  };
  std::vector<Entry> order;
  order.reserve(pieces_.size());
  for (int32_t id = 0; id < size(); id++) {
    if (!bytes(id).empty()) order.push_back({prefix_of(bytes(id)), id});
  }
  std::sort(order.begin(), order.end(), [this](const Entry& a, const Entry& b) {
    return a.prefix != b.prefix ? a.prefix < b.prefix : bytes(a.id) < bytes(b.id);
  });
  std::vector<int32_t> ids;
  ids.reserve(order.size());
  for (const Entry& entry : order) ids.push_back(entry.id);
  return ids;
}

WorldVocabulary parse_world_vocabulary(std::string_view text, const std::string& path) {
  refuse_encodings(text, path);
  WorldVocabulary vocabulary;
  std::vector<size_t> line_of_id(static_cast<size_t>(Vocabulary::max_id) + 1);
  std::string bytes;
  for (size_t number = 1; !text.empty(); number++) {
    const size_t end = std::min(text.find('\n'), text.size());
    Line line{text.substr(0, end), path, number};
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.rest.ends_with('\r')) line.rest.remove_suffix(1);
    const int32_t id = read_line(line, bytes);
    size_t& id_line = line_of_id[static_cast<size_t>(id)];
    if (!vocabulary.tokens.add(id, bytes)) {
      line.fail(fmt::format("id {} stands in line {} already", id, id_line));
    }
    id_line = number;
  }
  vocabulary.sorted_ids = vocabulary.tokens.sorted_ids();
  refuse_equal_tokens(vocabulary, line_of_id, path);
  require_single_bytes(vocabulary.tokens, path);
  return vocabulary;
}

}  // namespace rwkv
