// A fixed team of threads that runs one function at a time on all of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace rwkv {

/// Half-open range of work.
struct Range {
  int64_t begin, end;
};

/// The part of `count` items, cut at multiples of `grain`, that belongs to worker `index` of `workers`. The
/// parts follow each other and cover everything; their sizes differ by at most one grain.
Range partition(int64_t count, int64_t grain, int index, int workers);

/// Workers spin briefly for the next step and then sleep. One thread at a time may call run(); what the
/// function throws is undefined behaviour. The calling thread is worker 0.
class ThreadPool {
 public:
  /// 0: one thread per physical core that this process may use. Throws Error for a number that is not 0 to
  /// 1024, and when the system refuses that many threads.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls function(worker index) once on every thread and returns when all calls have.
  template <class Function>
  void run(Function&& function) {
    using F = std::remove_reference_t<Function>;
    run_step([](void* f, int worker) { (*static_cast<F*>(f))(worker); }, &function);
  }

 private:
  using Step = void (*)(void*, int);
  void run_step(Step step, void* argument);
  void work(int index);
  void stop();

  std::vector<std::thread> workers_;
  Step step_ = nullptr;
  void* argument_ = nullptr;
  bool spin_ = true;
  std::atomic<bool> stop_{false};
  // On cache lines of their own: one is polled while the other is written.
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int> running_{0};
};

}  // namespace rwkv
