#include "core/shared_work.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

/// What a worker gets when nobody else takes anything, until there is nothing left.
std::vector<std::vector<int64_t>> takes(SharedWork& work, int worker, int64_t most) {
  std::vector<std::vector<int64_t>> all;
  for (Range range; (range = work.take(worker, most)).begin < range.end;)
    all.push_back({range.begin, range.end});
  return all;
}

using Takes = std::vector<std::vector<int64_t>>;

}  // namespace

TEST_CASE("shared work: halves of one's own from the front, then single pieces from the back of others") {
  SharedWork work(3);
  CHECK(takes(work, 0, 100).empty());
  work.give(0, {0, 8});
  CHECK(takes(work, 0, 100) == Takes{{0, 4}, {4, 6}, {6, 7}, {7, 8}});
  work.give(0, {5, 10});
  CHECK(takes(work, 0, 2) == Takes{{5, 7}, {7, 9}, {9, 10}});
  work.give(0, {0, 2});
  work.give(2, {2, 5});
  CHECK(takes(work, 0, 1) == Takes{{0, 1}, {1, 2}, {4, 5}, {3, 4}, {2, 3}});
  CHECK(takes(work, 2, 1).empty());
  work.give(1, {UINT32_MAX - 1, UINT32_MAX});
  CHECK(takes(work, 0, 1) == Takes{{UINT32_MAX - 1, UINT32_MAX}});
}

TEST_CASE("shared work: every piece goes to one worker, whoever has it at first and however fast they are") {
  constexpr int64_t count = 5000;
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    SharedWork work(threads);
    for (int owners : {1, threads}) {
      for (int64_t most : {int64_t{1}, int64_t{7}, INT64_MAX}) {
        CAPTURE(threads);
        CAPTURE(owners);
        CAPTURE(most);
        std::vector<int> taken(count);  // unguarded: a piece that two have is a data race
        for (int worker = 0; worker < owners; worker++)
          work.give(worker, partition(count, 1, worker, owners));
        std::atomic<int> waiting = threads;
        pool.run([&](int worker) {
          // All begin at once.
          for (waiting--; waiting != 0;) std::this_thread::yield();
          for (Range range; (range = work.take(worker, most)).begin < range.end;) {
            for (int64_t i = range.begin; i < range.end; i++) taken[static_cast<size_t>(i)]++;
            if (worker % 2 == 1) std::this_thread::yield();
          }
        });
        REQUIRE(std::ranges::count(taken, 1) == count);
      }
    }
  }
}

TEST_CASE("shared work: who waits in a piece keeps nobody from the rest of what it had") {
  ThreadPool pool(2);
  SharedWork work(2);
  work.give(0, {0, 10});
  std::atomic<int> done = 0;
  pool.run([&](int worker) {
    if (worker == 0) {
      const Range range = work.take(0, 1);
      CHECK(range.end - range.begin == 1);
      while (done != 9) std::this_thread::yield();
      CHECK(work.take(0, 1).begin == work.take(0, 1).end);
    } else {
      while (done != 9) done += static_cast<int>(work.take(1, 1).end > 0);
    }
  });
  CHECK(done == 9);
}

}  // namespace rwkv::test
