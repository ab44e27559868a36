#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <vector>

#include "tokenizer/utf8.h"

namespace rwkv {

namespace {

struct ClassRange {
  char32_t first, last;
  CharClass value;
};

struct CombiningRange {
  char32_t first, last;
  uint8_t value;
};

/// One step of a canonical decomposition, to one code or to two.
struct Decomposition {
  char32_t code, first, second = 0;
};

constexpr CharClass l = CharClass::letter;
constexpr CharClass n = CharClass::number;
constexpr CharClass s = CharClass::space;

#include "tokenizer/unicode_classes.inc"
#include "tokenizer/unicode_combining.inc"
#include "tokenizer/unicode_decompositions.inc"

/// The value of the range that holds the code, or a zero value.
template <class Range>
auto value_in(std::span<const Range> ranges, char32_t code) {
  const auto range = std::lower_bound(ranges.begin(), ranges.end(), code,
                                      [](const Range& r, char32_t c) { return r.last < c; });
  return range != ranges.end() && range->first <= code ? range->value : decltype(range->value){};
}

const Decomposition* find_decomposition(std::span<const Decomposition> rows, char32_t code) {
  const auto row = std::lower_bound(rows.begin(), rows.end(), code,
                                    [](const Decomposition& r, char32_t c) { return r.code < c; });
  return row != rows.end() && row->code == code ? &*row : nullptr;
}

/// Hangul syllables are L + V or L + V + T by arithmetic (the Unicode standard, 3.12).
namespace hangul {
constexpr char32_t s = 0xac00, l = 0x1100, v = 0x1161, t = 0x11a7;
constexpr char32_t l_count = 19, v_count = 21, t_count = 28, s_count = l_count * v_count * t_count;
constexpr bool is_syllable(char32_t code) { return code >= s && code < s + s_count; }
}  // namespace hangul

/// The character that two compose to, or 0.
char32_t compose(char32_t first, char32_t second) {
  if (first >= hangul::l && first < hangul::l + hangul::l_count && second >= hangul::v &&
      second < hangul::v + hangul::v_count) {
    return hangul::s + ((first - hangul::l) * hangul::v_count + (second - hangul::v)) * hangul::t_count;
  }
  if (hangul::is_syllable(first) && (first - hangul::s) % hangul::t_count == 0 && second > hangul::t &&
      second < hangul::t + hangul::t_count) {
    return first + (second - hangul::t);
  }
  static const std::vector<Decomposition> by_parts = [] {
    std::vector<Decomposition> rows(std::begin(compositions), std::end(compositions));
    std::sort(rows.begin(), rows.end(), [](const Decomposition& a, const Decomposition& b) {
      return a.first != b.first ? a.first < b.first : a.second < b.second;
    });
    return rows;
  }();
  const auto row = std::lower_bound(by_parts.begin(), by_parts.end(), Decomposition{0, first, second},
                                    [](const Decomposition& a, const Decomposition& b) {
                                      return a.first != b.first ? a.first < b.first : a.second < b.second;
                                    });
  return row != by_parts.end() && row->first == first && row->second == second ? row->code : 0;
}

/// Takes characters and appends their normal form. It holds back the last starter (a character of combining
/// class 0) with the marks after it, until another starter comes that does not compose with it.
class Composer {
 public:
  explicit Composer(std::string& out) : out_(out) {}

  void push(char32_t code) {
    if (hangul::is_syllable(code)) {
      const char32_t index = code - hangul::s;
      push_decomposed(hangul::l + index / (hangul::v_count * hangul::t_count));
      push_decomposed(hangul::v + index / hangul::t_count % hangul::v_count);
      if (index % hangul::t_count != 0) push_decomposed(hangul::t + index % hangul::t_count);
      return;
    }
    const Decomposition* row = find_decomposition(compositions, code);
    if (row == nullptr) row = find_decomposition(decompositions_only, code);
    if (row == nullptr) return push_decomposed(code);
    push(row->first);
    if (row->second != 0) push(row->second);
  }

  void flush() {
    compose_marks();
    emit();
  }

 private:
  static constexpr char32_t none = 0xffffffff;

  struct Mark {
    char32_t code;
    uint8_t combining;
  };

  void push_decomposed(char32_t code) {
    const uint8_t combining = value_in<CombiningRange>(combining_ranges, code);
    if (combining != 0) {
      marks_.push_back({code, combining});
      return;
    }
    compose_marks();
    const char32_t composed = starter_ != none && marks_.empty() ? compose(starter_, code) : 0;
    if (composed == 0) emit();
    starter_ = composed != 0 ? composed : code;
  }

  void emit() {
    if (starter_ != none) append_utf8(starter_, out_);
    for (const Mark& mark : marks_) append_utf8(mark.code, out_);
    starter_ = none;
    marks_.clear();
  }

  /// Sorts the marks and takes into the starter what composes with it and is not blocked by a mark that
  /// stays.
  void compose_marks() {
    if (marks_.empty()) return;
    std::stable_sort(marks_.begin(), marks_.end(),
                     [](const Mark& a, const Mark& b) { return a.combining < b.combining; });
    if (starter_ == none) return;
    auto kept = marks_.begin();
    for (const Mark& mark : marks_) {
      const bool blocked = kept != marks_.begin() && std::prev(kept)->combining >= mark.combining;
      const char32_t composed = blocked ? 0 : compose(starter_, mark.code);
      if (composed != 0) {
        starter_ = composed;
      } else {
        *kept++ = mark;
      }
    }
    marks_.erase(kept, marks_.end());
  }

  std::string& out_;
  char32_t starter_ = none;
  std::vector<Mark> marks_;
};

}  // namespace

CharClass char_class(char32_t code) {
  static const auto ascii = [] {
    std::array<CharClass, 128> classes{};
    for (char32_t c = 0; c < classes.size(); c++) classes[c] = value_in<ClassRange>(class_ranges, c);
    return classes;
  }();
  return code < ascii.size() ? ascii[code] : value_in<ClassRange>(class_ranges, code);
}

void append_nfc(std::string_view text, std::string& out) {
  Composer composer(out);
  while (!text.empty()) {
    const auto ascii = std::find_if(text.begin(), text.end(), [](char c) { return c < 0; }) - text.begin();
    if (ascii > 1) {  // ASCII stays as it is; only the last may compose with a mark after it
      composer.flush();
      out += text.substr(0, static_cast<size_t>(ascii) - 1);
      text.remove_prefix(static_cast<size_t>(ascii) - 1);
    }
    const Utf8Char c = read_utf8(text);
    if (c.kind == Utf8Char::Kind::whole) {
      composer.push(c.code);
    } else {
      composer.flush();
      out += text.substr(0, c.length);
    }
    text.remove_prefix(c.length);
  }
  composer.flush();
}

}  // namespace rwkv
