// Memory refused at one allocation after the other: an error, nothing left behind, and everything works
// afterwards.
#include <doctest/doctest.h>

#include <new>

#include "core/error.h"
#include "model/checkpoint/convert.h"
#include "test/allocations.h"
#include "test/model/checkpoint/build.h"
#include "test/model/checkpoint_model.h"
#include "test/model/run.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

namespace fs = std::filesystem;

/// Calls `action` with the first allocation failing, then with the eighth, and so on until none is left: what
/// is done for one tensor is done for all, so each place has its turn. Some can do without what they ask for.
void fail_allocations(const std::function<void()>& action, const std::function<void()>& check) {
  action();
  for (uint64_t n = 1;; n += 7) {
    CAPTURE(n);
    restart_peak();
    bool refused = false;
    fail_allocation(n);
    try {
      action();
    } catch (const std::bad_alloc&) {
      refused = true;
    } catch (const Error&) {
      refused = true;
    }
    const bool reached = allocation_failed();
    fail_allocation(0);
    const int64_t left = live_bytes();
    CHECK(left == 0);
    CHECK((reached || !refused));
    check();
    if (!reached) break;
  }
}

}  // namespace

TEST_CASE("out of memory: a conversion leaves nothing behind") {
  TemporaryDirectory directory;
  const std::string source = directory / "model.pth", output = directory / "model.rwkv";
  write_checkpoint(source, make_checkpoint({}));
  auto files = [&] {
    auto entries = fs::directory_iterator(directory / "");
    return std::distance(begin(entries), end(entries));
  };
  ConvertOptions options;
  options.strategy = "cpu fp32i8";
  fail_allocations([&] { convert_model(Checkpoint::open(source), output, options); },
                   [&] { CHECK(files() == 2); });
}

TEST_CASE("out of memory: a model that cannot be loaded or run is gone") {
  TemporaryDirectory directory;
  const std::string source = directory / "model.pth";
  write_checkpoint(source, make_checkpoint({}));
  fail_allocations(
      [&] {
        auto model = load_checkpoint(source, "cpu fp32i8");
        Executor executor(model, 2);
        State state(model);
        const std::vector<int32_t> tokens = {1, 2, 3};
        std::vector<float> logits(static_cast<size_t>(model->config().n_vocab));
        executor.forward(tokens, state, logits);
      },
      [] {});
}

}  // namespace rwkv::test

TEST_SUITE_END();
