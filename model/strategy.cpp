#include "model/strategy.h"

#include <fmt/format.h>

#include <charconv>

#include "core/error.h"

namespace rwkv {
namespace {

constexpr std::string_view blanks = " \t\r\n";

std::string_view strip(std::string_view text) {
  size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::string_view next_word(std::string_view& text) {
  text = strip(text);
  std::string_view word = text.substr(0, text.find_first_of(blanks));
  text.remove_prefix(word.size());
  return word;
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || text.empty() || text[0] == '-') {
    return std::nullopt;
  }
  return value;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Strategy parse() {
    Strategy strategy;
    std::string_view rest = text_;
    if (strip(rest).empty()) fail("it is empty");
    while (true) {
      size_t arrow = rest.find("->");
      strategy.segments.push_back(segment(strip(rest.substr(0, arrow))));
      if (arrow == std::string_view::npos) break;
      rest.remove_prefix(arrow + 2);
    }
    int streams = 0;
    for (const Segment& s : strategy.segments) streams += s.stream ? 1 : 0;
    if (streams > 1) fail("only one segment can take '+'");
    return strategy;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(
        fmt::format("strategy '{}': {}; for example 'cpu fp32', 'cpu bf16i8', 'cuda fp16 *20 -> cpu "
                    "fp32', 'cuda fp16i8 *20+'",
                    printable(text_), what));
  }

  [[nodiscard]] Segment segment(std::string_view text) const {
    if (text.empty()) fail("a part between '->' is empty");
    Segment s;
    device(next_word(text), s);
    precision(next_word(text), s);
    if (std::string_view count = next_word(text); !count.empty()) layer_count(count, s);
    if (!strip(text).empty()) fail(fmt::format("'{}' is too much", printable(strip(text))));
    return s;
  }

  void device(std::string_view word, Segment& s) const {
    if (word == "cpu") return;
    s.device = DeviceKind::cuda;
    if (word == "cuda") return;
    std::optional<int64_t> index;
    if (word.starts_with("cuda:")) index = whole_number(word.substr(5));
    if (!index || *index > 63) {
      fail(fmt::format("'{}' is no device: cpu, cuda or cuda:0 to cuda:63", printable(word)));
    }
    s.device_index = static_cast<int>(*index);
  }

  void precision(std::string_view word, Segment& s) const {
    if (word.empty())
      fail("a precision is missing after the device: fp32, fp16 or bf16, each also with i8 or i4");
    std::string_view type = word.substr(0, 4);
    if (type == "fp32") {
      s.type = DType::f32;
    } else if (type == "fp16") {
      s.type = DType::f16;
    } else if (type == "bf16") {
      s.type = DType::bf16;
    } else {
      fail(fmt::format("'{}' is no precision: fp32, fp16 or bf16, each also with i8 or i4", printable(word)));
    }
    std::string_view suffix = word.substr(type.size());
    s.quantization = suffix == "i8"   ? Quantization::int8
                     : suffix == "i4" ? Quantization::int4
                                      : Quantization::none;
    if (s.quantization == Quantization::none && !suffix.empty()) {
      fail(
          fmt::format("'{}' is not supported: fp32, fp16 or bf16, each also with i8 or i4", printable(word)));
    }
  }

  void layer_count(std::string_view word, Segment& s) const {
    if (!word.starts_with('*')) fail(fmt::format("'{}' should be *N or *N+", printable(word)));
    std::string_view digits = word.substr(1);
    if (digits.ends_with('+')) {
      s.stream = true;
      digits.remove_suffix(1);
    }
    s.layers = whole_number(digits);
    if (!s.layers) fail(fmt::format("'{}' should be * and a number of layers", printable(word)));
    if (*s.layers == 0 && !s.stream) fail("a segment of 0 layers");
  }

  std::string_view text_;
};

}  // namespace

Strategy Strategy::parse(std::string_view text) { return Parser(text).parse(); }

std::vector<LayerPlan> Strategy::plan(int64_t layers) const {
  int64_t taken = 0, shares = 0;
  bool streams = false;
  for (const Segment& s : segments) {
    taken = s.layers.value_or(0) > layers ? layers + 1 : taken + s.layers.value_or(0);
    if (taken > layers) {
      throw Error(fmt::format(
          "strategy '{}' takes more layers than the model's {} ({} and the head): lower the numbers after *",
          to_string(*this), layers, layers - 1));
    }
    shares += s.layers ? 0 : 1;
    streams = streams || s.stream;
  }
  std::vector<LayerPlan> plans;
  int64_t left = layers - taken;
  for (const Segment& s : segments) {
    int64_t resident = s.layers.value_or(0), streamed = 0;
    if (!s.layers && !streams) {
      resident = left / shares--;
      left -= resident;
    }
    if (s.stream) streamed = left;
    if (!streams && &s == &segments.back()) resident += left;
    LayerPlan plan{s.device, s.device_index, s.type, s.quantization, false};
    plans.insert(plans.end(), static_cast<size_t>(resident), plan);
    // Host memory is where a streamed layer lies: on the CPU there is nothing to stream.
    plan.streamed = s.device != DeviceKind::cpu;
    plans.insert(plans.end(), static_cast<size_t>(streamed), plan);
  }
  return plans;
}

std::string precision_name(DType type, Quantization quantization) {
  constexpr std::string_view suffixes[] = {"", "i8", "i4"};
  return fmt::format("{}{}", name_of(type), suffixes[static_cast<size_t>(quantization)]);
}

std::string to_string(const Strategy& strategy) {
  std::string text;
  for (const Segment& s : strategy.segments) {
    if (!text.empty()) text += " -> ";
    text += s.device == DeviceKind::cpu ? "cpu"
            : s.device_index == 0       ? "cuda"
                                        : fmt::format("cuda:{}", s.device_index);
    text += " " + precision_name(s.type, s.quantization);
    if (s.layers) text += fmt::format(" *{}{}", *s.layers, s.stream ? "+" : "");
  }
  return text;
}

}  // namespace rwkv
