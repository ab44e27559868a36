#include "cuda/emulator/clock.h"

#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

namespace emulator::simulated {

namespace {

struct Line {
  int device;
  bool ordered;
  double end;
};

std::deque<std::shared_ptr<Step>> steps;
std::map<uint64_t, Line> streams;
std::map<std::tuple<int, bool>, double>
    default_ends;  // by device; the end of the default or of blocking streams
std::map<std::tuple<int, Engine>, double> engines;
double host = 0;

double device_end(int device) {
  double end = 0;
  for (const auto& [id, line] : streams) {
    if (line.device == device) end = std::max(end, line.end);
  }
  return end;
}

void time_work(const Step& step, Line& line) {
  double start = std::max(host, line.end);
  if (step.ordered) start = std::max(start, default_ends[{step.device, !step.is_default}]);
  if (step.kind == Step::Kind::wait) start = std::max(line.end, step.moment->seconds);
  if (step.kind == Step::Kind::work) {
    double& engine = engines[{step.device, step.engine}];
    start = std::max(start, engine) + step.seconds;
    engine = start;
  }
  if (step.kind == Step::Kind::record) step.moment->seconds = start;
  line.end = start;
  if (step.ordered) {
    double& end = default_ends[{step.device, step.is_default}];
    end = std::max(end, start);
  }
}

void time_step(const Step& step) {
  switch (step.kind) {
    case Step::Kind::host_waits_for_stream:
      host = std::max(host, streams[step.stream].end);
      return;
    case Step::Kind::host_waits_for_moment:
      host = std::max(host, step.moment->seconds);
      return;
    case Step::Kind::host_waits_for_device:
      host = std::max(host, device_end(step.device));
      return;
    default: {
      Line& line = streams[step.stream];
      line.device = step.device;
      line.ordered = step.ordered;
      time_work(step, line);
    }
  }
}

}  // namespace

void reset() {
  steps.clear();
  streams.clear();
  default_ends.clear();
  engines.clear();
  host = 0;
}

std::shared_ptr<Step> add(const Step& step) {
  steps.push_back(std::make_shared<Step>(step));
  return steps.back();
}

void advance() {
  while (!steps.empty() && steps.front()->executed) {
    time_step(*steps.front());
    steps.pop_front();
  }
}

double end() {
  advance();
  double last = host;
  for (const auto& [id, line] : streams) last = std::max(last, line.end);
  return last;
}

}  // namespace emulator::simulated
