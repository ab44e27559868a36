#include "core/thread_pool.h"

#include <doctest/doctest.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>
#include <vector>

#include "core/processors.h"
#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {

TEST_CASE("partition: complete, in order, cut at multiples of the grain, even to one grain") {
  for (int64_t count : {0, 1, 2, 15, 16, 17, 31, 33, 100, 255, 256, 1000}) {
    for (int64_t grain : {1, 2, 16, 64, 2000}) {
      for (int workers : {1, 2, 3, 7, 16, 64}) {
        CAPTURE(count);
        CAPTURE(grain);
        CAPTURE(workers);
        int64_t end = 0, smallest = INT64_MAX, largest = 0;
        for (int i = 0; i < workers; i++) {
          Range range = partition(count, grain, i, workers);
          REQUIRE(range.begin == end);
          REQUIRE(range.end >= range.begin);
          REQUIRE((range.end % grain == 0 || range.end == count));
          end = range.end;
          int64_t grains = (range.end - range.begin + grain - 1) / grain;
          smallest = std::min(smallest, grains);
          largest = std::max(largest, grains);
        }
        REQUIRE(end == count);
        REQUIRE(largest - smallest <= 1);
      }
    }
  }
}

TEST_CASE("partition: the largest count does not overflow") {
  CHECK(partition(INT64_MAX, 64, 0, 3).begin == 0);
  CHECK(partition(INT64_MAX, 64, 0, 3).end == partition(INT64_MAX, 64, 1, 3).begin);
  CHECK(partition(INT64_MAX, 64, 2, 3).end == INT64_MAX);
  CHECK(partition(INT64_MAX, INT64_MAX - 1, 1, 2).begin == INT64_MAX - 1);
}

TEST_CASE(
    "thread pool: every worker runs every step once, on a thread of its own, worker 0 on the caller's") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    REQUIRE(pool.threads() == threads);
    std::vector<std::thread::id> ids(static_cast<size_t>(threads));
    std::vector<int> calls(static_cast<size_t>(threads));  // unguarded: a missing barrier is a data race
    for (int step = 0; step < 300; step++) {
      pool.run([&](int worker) {
        ids[static_cast<size_t>(worker)] = std::this_thread::get_id();
        calls[static_cast<size_t>(worker)]++;
      });
      REQUIRE(calls == std::vector<int>(static_cast<size_t>(threads), step + 1));
    }
    CHECK(ids[0] == std::this_thread::get_id());
    CHECK(std::set<std::thread::id>(ids.begin(), ids.end()).size() == ids.size());
  }
}

TEST_CASE("thread pool: what one step wrote, the next one reads on any thread") {
  constexpr int threads = 4, count = 1000, steps = 50;
  ThreadPool pool(threads);
  std::vector<int> now(count), next(count);
  for (int step = 0; step < steps; step++) {
    pool.run([&](int worker) {
      Range range = partition(count, 1, worker, threads);
      for (int64_t i = range.begin; i < range.end; i++) {
        next[static_cast<size_t>(count - 1 - i)] = now[static_cast<size_t>(i)] + 1;
      }
    });
    std::swap(now, next);
  }
  CHECK(now == std::vector<int>(count, steps));
}

TEST_CASE(
    "thread pool: steps come in time whether workers spin or sleep, and the caller waits for slow ones") {
  ThreadPool pool(3);
  std::atomic<int> calls = 0;
  for (int step = 0; step < 20; step++) {
    // Longer than workers spin: in the pause the workers fall asleep, in the step the caller does.
    if (step % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    pool.run([&](int worker) {
      if (worker == 1 && step % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      calls++;
    });
    REQUIRE(calls == 3 * (step + 1));
  }
}

TEST_CASE("thread pool: the function is called where it stands, not a copy of it") {
  struct Counter {
    std::atomic<int> calls = 0;
    void operator()(int) { calls++; }
  } counter;
  ThreadPool pool(2);
  pool.run(counter);
  CHECK(counter.calls == 2);
}

TEST_CASE("thread pool: many come and go without a step") {
  for (int i = 0; i < 100; i++) ThreadPool pool(1 + i % 4);
}

TEST_CASE("thread pool: several at once do not disturb each other") {
  std::atomic<int> calls = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; i++) {
    callers.emplace_back([&calls] {
      ThreadPool pool(2);
      for (int step = 0; step < 100; step++) pool.run([&](int) { calls++; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(calls == 3 * 100 * 2);
}

TEST_CASE("thread pool: by default as many threads as usable cores") {
  CHECK(usable_cores() >= 1);
  CHECK(usable_cores() <= usable_processors());
  CHECK(ThreadPool().threads() == std::min(usable_cores(), 1024));
}

TEST_CASE("thread pool: an affinity mask of one processor leaves one thread") {
  int processors = 0, cores = 0;
  std::thread([&] {
    cpu_set_t all, one;
    REQUIRE(pthread_getaffinity_np(pthread_self(), sizeof(all), &all) == 0);
    int first = 0;
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    REQUIRE(pthread_setaffinity_np(pthread_self(), sizeof(one), &one) == 0);
    processors = usable_processors();
    cores = usable_cores();
  }).join();
  CHECK(processors == 1);
  CHECK(cores == 1);
}

TEST_CASE("thread pool: a number of threads that makes no sense is an Error") {
  CHECK(error_of([] { ThreadPool pool(-1); }) ==
        "-1 threads: the number must be 1 to 1024, or 0 for one per core");
  CHECK(error_of([] { ThreadPool pool(1025); }).starts_with("1025 threads"));
  CHECK(error_of([] { ThreadPool pool(INT32_MIN); }).starts_with("-2147483648 threads"));
}

TEST_CASE("thread pool: threads that the system refuses are an Error") {
  pthread_attr_t before, huge;
  REQUIRE(pthread_getattr_default_np(&before) == 0);
  REQUIRE(pthread_attr_init(&huge) == 0);
  REQUIRE(pthread_attr_setstacksize(&huge, size_t{1} << 58) == 0);  // more than there are addresses
  REQUIRE(pthread_setattr_default_np(&huge) == 0);
  std::string message = error_of([] { ThreadPool pool(4); });
  REQUIRE(pthread_setattr_default_np(&before) == 0);
  CHECK(message.starts_with("cannot start 4 threads, only 1: "));
  CHECK(error_of([] { ThreadPool pool(4); }).empty());
}

}  // namespace rwkv::test

TEST_SUITE_END();
