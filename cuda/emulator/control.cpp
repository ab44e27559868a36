#include "cuda/emulator/control.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "cuda/emulator/call.h"
#include "cuda/emulator/capture.h"

namespace emulator {

namespace {

constexpr const char* order_names[] = {"ascending", "descending", "by-warp", "random"};
constexpr const char* stream_names[] = {"eager", "late", "rush", "random"};

template <class T, size_t count>
bool parse_name(const std::string& text, const char* const (&names)[count], T& value) {
  for (size_t i = 0; i < count; i++) {
    if (text == names[i]) {
      value = static_cast<T>(i);
      return true;
    }
  }
  return false;
}

std::string in_words(const Settings& s) {
  return "seed=" + std::to_string(s.seed) + " order=" + order_names[static_cast<size_t>(s.order)] +
         " streams=" + stream_names[static_cast<size_t>(s.streams)];
}

bool parse_word(const std::string& name, const std::string& value, Settings& s) {
  if (name == "seed" || name == "devices") {
    if (value.empty() || value.size() > 18 || value.find_first_not_of("0123456789") != std::string::npos)
      return false;
    const uint64_t number = std::stoull(value);
    if (name == "seed") s.seed = number;
    if (name == "devices" && number > memory::max_devices) return false;
    if (name == "devices") s.devices = static_cast<int>(number);
    return true;
  }
  if (name == "order") return parse_name(value, order_names, s.order);
  return name == "streams" && parse_name(value, stream_names, s.streams);
}

}  // namespace

State& state() {
  static State s;
  return s;
}

std::recursive_mutex& runtime_lock() {
  static std::recursive_mutex lock;
  return lock;
}

int& current_device() {
  static thread_local int device = 0;
  return device;
}

cudaError_t& last_error() {
  static thread_local cudaError_t error = cudaSuccess;
  return error;
}

void begin_runtime() {
  if (!state().configured) configure(settings_from_environment());
}

cudaError_t fail(cudaError_t error, const std::string& text) {
  State& s = state();
  const bool stays = error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure ||
                     error == cudaErrorMisalignedAddress || error == cudaErrorLaunchOutOfResources;
  if (stays && s.sticky == cudaSuccess) s.sticky = error;
  if (!s.report.empty()) return error;
  s.report = text + " (again: CUDA_EMULATOR=\"" + in_words(s.settings) + "\")";
  if (s.settings.print_reports) fprintf(stderr, "emulated CUDA device: %s\n", s.report.c_str());
  return error;
}

cudaError_t begin_call(Operation operation) {
  begin_runtime();
  State& s = state();
  if (!s.settings.driver) return cudaErrorInsufficientDriver;
  if (s.settings.devices == 0) return cudaErrorNoDevice;
  if (s.sticky != cudaSuccess) return s.sticky;
  const auto count = [&s](Operation which) { return ++s.calls[static_cast<size_t>(which)]; };
  const int of_any = count(Operation::any);
  const int of_kind = operation == Operation::any ? of_any : count(operation);
  const int now = s.planned.operation == Operation::any ? of_any : of_kind;
  const bool planned = s.planned.at != 0 && now == s.planned.at &&
                       (s.planned.operation == Operation::any || s.planned.operation == operation);
  if (!planned) return cudaSuccess;
  const cudaError_t error = s.planned.error;
  s.planned = {};
  if ((operation == Operation::launch || operation == Operation::copy ||
       operation == Operation::synchronization) &&
      (error == cudaErrorLaunchFailure || error == cudaErrorIllegalAddress)) {
    s.sticky = error;
  }
  return error;
}

Settings settings_from_environment() {
  Settings s;
  const char* variable = getenv("CUDA_EMULATOR");
  std::istringstream words(variable == nullptr ? "" : variable);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || !parse_word(word.substr(0, equals), word.substr(equals + 1), s)) {
      throw std::invalid_argument("CUDA_EMULATOR: " + word +
                                  ": give seed=N, devices=N, order=ascending|descending|by-warp|random, "
                                  "streams=eager|late|rush|random");
    }
  }
  return s;
}

void configure(const Settings& settings) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  if (settings.devices < 0 || settings.devices > memory::max_devices) {
    throw std::invalid_argument("the emulator has 0 to 8 devices");
  }
  memory::reset(settings.device_memory);
  simulated::reset();
  queue::reset(settings.devices, settings.seed);
  reset_events();
  capture::reset();
  reset_graphs();
  state() = {};
  state().settings = settings;
  state().configured = true;
  current_device() = 0;
  last_error() = cudaSuccess;
}

Settings settings() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  begin_runtime();
  return state().settings;
}

Counters counters() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  Counters result = state().counters;
  result.peak_device_bytes = memory::peak();
  return result;
}

void reset_counters() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  begin_runtime();
  queue::wait_for_all();
  simulated::reset();
  memory::reset_peak();
  state().counters = {};
}

Live live() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  return {memory::live_count(true),
          memory::live_count(false),
          memory::registered_count(),
          queue::count(),
          event_count(),
          graph_count(),
          executable_count()};
}

double simulated_seconds() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  begin_runtime();
  queue::wait_for_all();
  return simulated::end();
}

std::string report() {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  return state().report;
}

void fail_call(Operation operation, int n, cudaError_t error) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  begin_runtime();
  state().planned = {operation, state().calls[static_cast<size_t>(operation)] + n, error};
}

thread_local int InRuntime::depth = 0;

bool inside_runtime() { return InRuntime::depth > 0; }

int calls(Operation operation) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  return state().calls[static_cast<size_t>(operation)];
}

}  // namespace emulator
