#include "core/thread_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <system_error>

#include "core/error.h"
#include "core/processors.h"

namespace rwkv {
namespace {

constexpr int max_threads = 1024;
// A thread that has slept needs 50 us to begin. Within this time others finish their share of a step, which
// differs by 100 us in large products, and a token is sampled.
constexpr auto spin_time = std::chrono::milliseconds(1);
// After this the processor is left to other programs' threads, if there are any.
constexpr auto polite_after = std::chrono::microseconds(20);

void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

/// Returns when `done` holds or the time for spinning is over.
template <class Condition>
void spin_until(Condition done) {
  constexpr int looks_per_clock = 32;
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (Clock::duration waited{}; waited < spin_time; waited = Clock::now() - start) {
    if (waited >= polite_after) std::this_thread::yield();
    for (int i = 0; i < looks_per_clock; i++) {
      if (done()) return;
      pause();
    }
  }
}

int checked_threads(int threads) {
  if (threads < 0 || threads > max_threads) {
    throw Error(
        fmt::format("{} threads: the number must be 1 to {}, or 0 for one per core", threads, max_threads));
  }
  return threads == 0 ? std::min(usable_cores(), max_threads) : threads;
}

}  // namespace

Range partition(int64_t count, int64_t grain, int index, int workers) {
  assert(count >= 0 && grain >= 1 && workers >= 1 && index >= 0 && index < workers);
  int64_t grains = count / grain + (count % grain != 0);
  int64_t share = grains / workers, larger_shares = grains % workers;
  auto begin_of = [&](int64_t worker) {
    int64_t first = worker * share + std::min(worker, larger_shares);
    return first < grains ? first * grain : count;
  };
  return {begin_of(index), begin_of(index + 1)};
}

ThreadPool::ThreadPool(int threads) {
  threads = checked_threads(threads);
  // With more threads than processors, a spinning thread keeps another from its work.
  spin_ = threads <= usable_processors();
  workers_.reserve(static_cast<size_t>(threads - 1));
  try {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error& e) {
    int started = this->threads();
    stop();
    throw Error(fmt::format("cannot start {} threads, only {}: {}; ask for fewer threads", threads, started,
                            e.code().message()));
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_ = true;
  generation_++;
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_step(Step step, void* argument) {
  step_ = step;
  argument_ = argument;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_++;  // publishes all of the above
  generation_.notify_all();
  step(argument, 0);
  if (spin_) spin_until([this] { return running_.load(std::memory_order_acquire) == 0; });
  for (int left = running_; left != 0; left = running_) running_.wait(left);
}

void ThreadPool::work(int index) {
  uint32_t seen = 0;
  while (true) {
    if (spin_) spin_until([&] { return generation_.load(std::memory_order_acquire) != seen; });
    generation_.wait(seen);
    seen++;  // no step begins before all workers have finished the one before
    if (stop_.load(std::memory_order_relaxed)) return;
    step_(argument_, index);
    if (--running_ == 0) running_.notify_one();
  }
}

}  // namespace rwkv
