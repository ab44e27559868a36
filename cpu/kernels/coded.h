// Segments of cpu_coded (ops/coding.h), two lines of cpu_blocks at a time.
#pragma once

#include "cpu/kernels/operand.h"
#include "ops/coding.h"

namespace rwkv::cpu::ISA {

constexpr int64_t two_lines_elements = 2 * line_bytes / 2;
constexpr int64_t group_inputs = group_elements / block_outputs;

namespace {

/// Groups that have these inputs of a segment, from its first on.
constexpr int64_t groups_of(int64_t inputs) { return (inputs + group_inputs - 1) / group_inputs; }

/// A segment from one of its groups on. A file may say anything: whatever the exceptions are, nothing but
/// lines is changed.
class SegmentReader {
 public:
  SegmentReader(const std::byte* segment, int64_t first_group)
      : head_(*reinterpret_cast<const SegmentHead*>(segment)),
        table_(load_code_table(head_.upper)),
        group_(segment + sizeof head_ + first_group * group_bytes),
        number_(first_group * 2),
        count_(std::min<int64_t>(head_.count, sizeof head_.exceptions)) {
    while (next_ < count_ && number_of_next() < number_) next_++;
    changed_ = number_of_next();
  }

  [[nodiscard]] const std::byte* group() const { return group_; }

  /// use(line) for the next group's lines.
  template <class Use>
  [[gnu::always_inline]] void read_group(Use use) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      Bytes upper = decode_upper(load_bytes(group_ + 2 * line_bytes), half, table_), lines[2];
      if (number_ + half == changed_) [[unlikely]]
        put_exceptions_into(upper);
      join_bytes(load_bytes(group_ + half * line_bytes), upper, lines);
      use(lines[0]);
      use(lines[1]);
    }
    group_ += group_bytes;
    number_ += 2;
  }

 private:
  // Of the two lines in the segment that the next exception is in.
  [[nodiscard]] int64_t number_of_next() const {
    return next_ < count_ ? head_.positions[next_] / two_lines_elements : -1;
  }
  // In registers: from memory, a line would wait for the bytes stored into it.
  void put_exceptions_into(Bytes& upper) {
    for (; number_of_next() == changed_; next_++) {
      const int element = head_.positions[next_] % two_lines_elements;
      const int place = element % 32 / 8 * 16 + element / 32 * 8 + element % 8;  // join_bytes() takes turns
      upper = replace_byte(upper, place, head_.exceptions[next_]);
    }
    changed_ = number_of_next();
  }

  const SegmentHead& head_;
  CodeTable table_;
  const std::byte* group_;
  int64_t number_, count_, next_ = 0, changed_;
};

}  // namespace
}  // namespace rwkv::cpu::ISA
