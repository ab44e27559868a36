// What operators take of the time: Ops::measure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace rwkv {

struct OperatorTime {
  std::string name;  ///< of the operator; of matmul with its matrices, outputs x inputs
  int64_t calls = 0;
  double seconds = 0;
  uint64_t weight_bytes = 0;  ///< of matrices, whether or not rows of them were skipped
};

class OperatorTimes {
 public:
  void add(const OperatorTime& time) {
    OperatorTime& sum = times_[time.name];
    sum.name = time.name;
    sum.calls += time.calls;
    sum.seconds += time.seconds;
    sum.weight_bytes += time.weight_bytes;
  }
  /// The longest first.
  [[nodiscard]] std::vector<OperatorTime> sorted() const;

 private:
  std::map<std::string, OperatorTime> times_;
};

}  // namespace rwkv
