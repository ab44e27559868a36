#include "tokenizer/utf8.h"

namespace rwkv {

namespace {

/// The bytes that may follow a lead byte: how many, and the range of the first of them; the others are 80 to
/// BF.
struct Continuation {
  uint32_t count = 0;
  unsigned char first_low = 0x80;
  unsigned char first_high = 0xbf;
};

Continuation continuation_of(unsigned char lead) {
  if (lead >= 0xc2 && lead <= 0xdf) return {1};
  if (lead == 0xe0) return {2, 0xa0, 0xbf};  // below: overlong
  if (lead == 0xed) return {2, 0x80, 0x9f};  // above: surrogates
  if (lead >= 0xe1 && lead <= 0xef) return {2};
  if (lead == 0xf0) return {3, 0x90, 0xbf};  // below: overlong
  if (lead >= 0xf1 && lead <= 0xf3) return {3};
  if (lead == 0xf4) return {3, 0x80, 0x8f};  // above: beyond U+10FFFF
  return {};
}

void append_hex(unsigned code, std::string& text) {
  constexpr std::string_view digits = "0123456789abcdef";
  text += "\\x";
  text += digits[code >> 4];
  text += digits[code & 15];
}

}  // namespace

Utf8Char read_utf8(std::string_view bytes) {
  using Kind = Utf8Char::Kind;
  const auto byte = [bytes](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Kind::whole, lead, 1};
  const Continuation expected = continuation_of(lead);
  if (expected.count == 0) return {Kind::invalid, replacement_character, 1};

  char32_t code = lead & (0x3fu >> expected.count);
  for (uint32_t i = 1; i <= expected.count; i++) {
    if (i == bytes.size()) return {Kind::incomplete, replacement_character, i};
    const unsigned char low = i == 1 ? expected.first_low : 0x80;
    const unsigned char high = i == 1 ? expected.first_high : 0xbf;
    if (byte(i) < low || byte(i) > high) return {Kind::invalid, replacement_character, i};
    code = code << 6 | (byte(i) & 0x3fu);
  }
  return {Kind::whole, code, expected.count + 1};
}

void append_utf8(char32_t code, std::string& text) {
  const auto put = [&text](char32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

void Utf8Stream::push(std::string_view bytes, std::string& text) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_.append(bytes);
    bytes = joined;
    pending_.clear();
  }
  while (!bytes.empty()) {
    const Utf8Char c = read_utf8(bytes);
    if (c.kind == Utf8Char::Kind::incomplete) {
      pending_ = bytes;
      return;
    }
    append_utf8(c.code, text);
    bytes.remove_prefix(c.length);
  }
}

void Utf8Stream::finish(std::string& text) {
  if (!pending_.empty()) append_utf8(replacement_character, text);
  pending_.clear();
}

std::string terminal_text(std::string_view text) {
  std::string safe;
  while (!text.empty()) {
    const Utf8Char c = read_utf8(text);
    const std::string_view bytes = text.substr(0, c.length);
    if (c.kind != Utf8Char::Kind::whole) {
      for (char byte : bytes) append_hex(static_cast<unsigned char>(byte), safe);
    } else if ((c.code < 0x20 && c.code != '\n' && c.code != '\t') || (c.code >= 0x7f && c.code <= 0x9f)) {
      append_hex(c.code, safe);
    } else {
      safe += bytes;
    }
    text.remove_prefix(c.length);
  }
  return safe;
}

}  // namespace rwkv
