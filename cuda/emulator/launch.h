// A kernel and its arguments with their types forgotten.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <tuple>
#include <type_traits>

namespace emulator {

/// The bytes of one argument of a launch.
struct Argument {
  const void* data;
  size_t bytes;
};

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
