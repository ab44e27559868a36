// Work that is repeated, and recorded.
#include "cuda/graph.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "cuda/cuda.h"
#include "cuda/ops.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/small_model.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

/// A model that decodes tokens, plainly or as repeated work.
class Decoder {
 public:
  Decoder(Device& device, Ops& ops, Version version, Quantization quantization = Quantization::int8)
      : ops_(ops), model_(device, version, DType::f16, quantization, 2) {}

  [[nodiscard]] SmallModel::State make_state() const { return model_.make_state(); }

  std::vector<float> decode(int32_t token, const SmallModel::State& state, bool repeated) {
    const void* key[] = {state.memory.data(), &model_};
    auto work = [&] {
      calls++;
      model_.run_layers(ops_, state, 1);
    };
    model_.embed(ops_, {&token, 1});
    if (repeated) {
      ops_.repeat(key, work);
    } else {
      work();
    }
    std::vector<float> logits(static_cast<size_t>(model_.logits(1).elements()));
    ops_.download(logits.data(), model_.logits(1));
    return logits;
  }

  int calls = 0;  ///< of the work

 private:
  Ops& ops_;
  SmallModel model_;
};

constexpr int32_t tokens[] = {3, 17, 39, 0, 5, 5, 21};

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("repeat: a record gives the bits of the work, which then is not called any more") {
  on_device(8, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    for (Version version : {Version::v4, Version::v6, Version::v7}) {
      CAPTURE(static_cast<int>(version));
      auto quantization = version == Version::v6 ? Quantization::int4 : Quantization::int8;
      Decoder decoder(*device, *ops, version, quantization);
      SmallModel::State plain = decoder.make_state(), repeated = decoder.make_state();
      int before = 0;
      for (int32_t token : tokens) {
        std::vector<float> expected = decoder.decode(token, plain, false);
        before = decoder.calls;
        CHECK(same_bits(decoder.decode(token, repeated, true), expected));
      }
      CHECK(decoder.calls == before);  // the last token came from the record
    }
  });
}

TEST_CASE("repeat: each of several keys has its record; more than are kept take turns") {
  on_device(2, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    Decoder decoder(*device, *ops, Version::v7);
    for (size_t keys : {3, 8, 11}) {
      CAPTURE(keys);
      SmallModel::State plain = decoder.make_state();
      std::vector<SmallModel::State> states;
      for (size_t i = 0; i < keys; i++) states.push_back(decoder.make_state());
      for (size_t i = 0; i < std::size(tokens); i++) {
        std::vector<float> expected = decoder.decode(tokens[i], plain, false);
        int before = decoder.calls;
        for (const SmallModel::State& state : states) {
          CHECK(same_bits(decoder.decode(tokens[i], state, true), expected));
        }
        // Seen twice, eight of them are records from the third token on.
        if (i >= 2) CHECK(decoder.calls - before == (keys <= 8 ? 0 : static_cast<int>(keys)));
      }
    }
  });
}

TEST_CASE("repeat: all of a key counts") {
  on_device(1, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    std::vector<float> ones(50, 1.0f), zeros(50);
    DeviceTensor x(*device, {1, 50}, ones), weight(*device, {50}, ones), out(*device, {1, 50}, zeros);
    const void* key[] = {&x, &weight, &out};
    for (size_t length : {2, 1, 3, 0}) {
      int calls = 0;
      for (int i = 0; i < 3; i++) {
        ops->repeat(std::span(key).first(length), [&] {
          calls++;
          ops->layer_norm(out, x, {weight, weight});
        });
      }
      CHECK(calls == 2);
    }
    ops->synchronize();
  });
}

TEST_CASE("repeat: records are forgotten when the memory changes that they use") {
  on_device(2, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    Decoder decoder(*device, *ops, Version::v5_2);
    SmallModel::State plain = decoder.make_state(), repeated = decoder.make_state();
    int64_t limit = 1000;
    for (int32_t token : tokens) {
      std::vector<float> expected = decoder.decode(token, plain, false);
      CHECK(same_bits(decoder.decode(token, repeated, true), expected));
      if (token == 0) ops->reserve({limit, limit, limit *= 2, 4});
    }
  });
}

TEST_CASE("repeat: work that cannot be recorded runs each time; transfers are refused") {
  on_device(4, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    std::vector<float> values = Random(1).normals(50), ones(50, 1.0f), read(50);
    DeviceTensor x(*device, {1, 50}, values), weight(*device, {50}, ones), out(*device, {1, 50}, ones);
    const void* key[] = {&x};
    int calls = 0;
    for (int i = 0; i < 4; i++) {
      ops->repeat(key, [&] {
        calls++;
        ops->layer_norm(out, x, {weight, weight});
        ops->synchronize();
      });
      ops->download(read.data(), out);
      ops->layer_norm(out, x, {weight, weight});
      ops->synchronize();
      CHECK(same_bits(read, out.values()));
    }
    CHECK(calls == 5);  // one of them in vain

    const void* other[] = {&weight};
    for (int i = 0; i < 3; i++) {
      CHECK(error_of([&] { ops->repeat(other, [&] { ops->upload(x, values.data()); }); }) ==
            "upload: cannot be part of repeated work");
    }
    ops->upload(x, values.data());  // but may be done afterwards
    ops->synchronize();
  });
}

TEST_CASE("repeat: an error of the work is told, and the queue goes on") {
  on_device(4, [] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    std::vector<float> ones(50, 1.0f);
    DeviceTensor x(*device, {1, 50}, ones), weight(*device, {50}, ones), out(*device, {1, 50}, ones);
    const void* key[] = {&x};
    bool bad = false;
    auto work = [&] {
      ops->layer_norm(out, x, {weight, weight});
      if (bad) throw Error("bad");
    };
    ops->repeat(key, work);
    bad = true;  // while it is recorded
    CHECK(error_of([&] { ops->repeat(key, work); }) == "bad");
    bad = false;
    ops->repeat(key, work);
    ops->synchronize();
    CHECK(out.values() == ones);
  });
}

TEST_CASE("repeat: a record that is running when it is replaced or forgotten runs to its end") {
  on_device(8, [] {
    auto device = cuda::open(0);
    std::vector<float> ones(50, 1.0f);
    DeviceTensor x(*device, {1, 50}, ones), weight(*device, {50}, ones);
    std::vector<std::unique_ptr<DeviceTensor>> outs;
    for (int i = 0; i < 20; i++) {
      outs.push_back(std::make_unique<DeviceTensor>(*device, std::initializer_list<int64_t>{1, 50}, ones));
    }
    {
      auto ops = device->make_ops();
      for (const auto& out : outs) {
        const void* key[] = {out.get()};
        for (int i = 0; i < 3; i++) ops->repeat(key, [&] { ops->layer_norm(*out, x, {weight, weight}); });
      }
      ops->reserve({10, 640, 100, 4});
    }
    for (const auto& out : outs) CHECK(out->values() == ones);
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
