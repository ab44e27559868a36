// What every call of the runtime does first and last.
#pragma once

#include <mutex>

#include "cuda/emulator/queue.h"
#include "cuda/emulator/state.h"

namespace emulator {

/// Calls of all host threads run one after another.
std::recursive_mutex& runtime_lock();
/// Takes the settings of the environment if there are none yet.
void begin_runtime();
/// The device that this host thread has set.
int& current_device();
cudaError_t& last_error();
/// Counts the call; the error that it shall return without doing anything, or success.
cudaError_t begin_call(Operation operation);

/// Events (stream_api.cpp).
void reset_events();
int event_count();

inline cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error() = error;
  return error;
}

/// Does a call: `body` returns an error.
template <class Body>
cudaError_t call(Operation operation, Body body) {
  const InRuntime mark;
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  cudaError_t error = begin_call(operation);
  if (error == cudaSuccess) {
    error = body();
    queue::progress();
    if (error == cudaSuccess) error = state().sticky;
  }
  return remember(error);
}

/// Does a call that gives something back. It does so even after an error that stays, and when it shall fail,
/// so that Live tells what a program forgot.
template <class Body>
cudaError_t release_call(Operation operation, Body body) {
  const InRuntime mark;
  const std::lock_guard<std::recursive_mutex> lock(runtime_lock());
  const cudaError_t error = begin_call(operation);
  if (!state().settings.driver || state().settings.devices == 0) return remember(error);
  const cudaError_t own = body();
  queue::progress();
  return remember(error != cudaSuccess ? error : own != cudaSuccess ? own : state().sticky);
}

}  // namespace emulator
