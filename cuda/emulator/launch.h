// A kernel and its arguments with their types forgotten.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <tuple>
#include <type_traits>

namespace emulator {

/// Marks what this thread does in the runtime and not in the program (inside_runtime() of control.h).
struct InRuntime {
  static thread_local int depth;
  InRuntime() { depth++; }
  ~InRuntime() { depth--; }
  InRuntime(const InRuntime&) = delete;
  InRuntime& operator=(const InRuntime&) = delete;
};

/// The bytes of one argument of a launch.
struct Argument {
  const void* data;
  size_t bytes;
};

template <class T>
Argument argument_of(const T& value) {
  return {&value, sizeof(T)};  // NOLINT(bugprone-sizeof-expression): of a pointer too
}

struct Kernel {
  const void* function;
  void (*run)(const void* call);  // runs one thread
  std::shared_ptr<const void> call;
};

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<std::remove_cv_t<P>...> arguments;

  static void run(const void* call) {
    const Call& self = *static_cast<const Call*>(call);
    std::apply(self.kernel, self.arguments);
  }
};

}  // namespace emulator
