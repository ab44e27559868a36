// UTF-8: reading characters from bytes that may be anything, and whole characters from pieces of a stream.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rwkv {

constexpr char32_t replacement_character = 0xfffd;

/// What stands at the front of some bytes.
struct Utf8Char {
  enum class Kind {
    whole,       ///< a character: `code` is valid
    incomplete,  ///< all the bytes that are left begin a character but do not finish it
    invalid,     ///< `length` bytes that no character begins with: one U+FFFD stands for them
  };
  Kind kind = Kind::invalid;
  char32_t code = replacement_character;
  uint32_t length = 0;  ///< bytes, 1 to 4
};

/// Requires at least one byte. Surrogates, overlong forms and codes above U+10FFFF are invalid. The length of
/// what is invalid follows the Unicode standard's "maximal subpart" practice (chapter 3, U+FFFD
/// substitution).
Utf8Char read_utf8(std::string_view bytes);

void append_utf8(char32_t code, std::string& text);

/// Turns bytes that come in pieces (tokens may split a character) into whole characters.
class Utf8Stream {
 public:
  /// Appends to `text` the characters that these bytes complete, with U+FFFD for what is invalid, and keeps
  /// an incomplete end (at most 3 bytes) for the next call.
  void push(std::string_view bytes, std::string& text);

  /// The bytes have ended: an incomplete end becomes one U+FFFD. The stream is then ready for another text.
  void finish(std::string& text);

 private:
  std::string pending_;
};

/// The text without what could command a terminal: control characters other than \n and \t (C0, DEL, and C1,
/// U+0080 to U+009F) and invalid bytes are shown as \xNN.
std::string terminal_text(std::string_view text);

}  // namespace rwkv
