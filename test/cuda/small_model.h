// Layers of any version with random weights on a device, run one operator after the other as a model runs
// them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/error.h"
#include "model/activations.h"
#include "model/layers.h"
#include "ops/device.h"
#include "test/ops/device_tensor.h"

namespace rwkv::test {

constexpr Version versions[] = {Version::v4, Version::v5_0, Version::v5_2, Version::v6, Version::v7};

/// Operators that each run alone, with no other in the same launch.
class Separately final : public Ops {
 public:
  explicit Separately(Ops& ops) : ops_(ops) {}
  [[nodiscard]] Layout blocks() const override { return ops_.blocks(); }
  void synchronize() override { ops_.synchronize(); }

 private:
  template <class Operator>
  void run(Operator op) {
    op();
    ops_.synchronize();
  }
  void do_reserve(const Limits& limits) override { ops_.reserve(limits); }
  void do_upload(std::byte*, const std::byte*, size_t) override { throw Error("not here"); }
  void do_download(std::byte*, const std::byte*, size_t) override { throw Error("not here"); }
  void do_receive(std::byte*, Ops&, const std::byte*, size_t) override { throw Error("not here"); }
  void do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) override {
    run([&] { ops_.embed(out, table, tokens); });
  }
  void do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) override {
    run([&] { ops_.layer_norm(out, x, norm); });
  }
  void do_token_shift(const TokenShift& shift) override {
    run([&] { ops_.token_shift(shift); });
  }
  void do_matmul(std::span<const Product> products) override {
    run([&] { ops_.matmul(products); });
  }
  void do_wkv4(const Wkv4& wkv) override {
    run([&] { ops_.wkv4(wkv); });
  }
  void do_wkv5(const Wkv5& wkv) override {
    run([&] { ops_.wkv5(wkv); });
  }
  void do_wkv7(const Wkv7& wkv) override {
    run([&] { ops_.wkv7(wkv); });
  }

  Ops& ops_;
};

class SmallModel {
 public:
  /// Matrices of `type`, the big ones quantized if so wanted.
  SmallModel(Device& device, Version version, DType type, Quantization quantization, int64_t layers);

  /// The state of a model that has seen nothing.
  struct State {
    Buffer memory;
    std::vector<LayerState> layers;
  };
  [[nodiscard]] State make_state() const;
  [[nodiscard]] std::vector<std::byte> bytes(const State& state) const;

  void reserve(Ops& ops) const { ops.reserve(operator_limits(config_, extent_)); }
  void embed(Ops& ops, std::span<const int32_t> tokens) const;
  /// The layers and the head: what can be repeated.
  void run_layers(Ops& ops, const State& state, int64_t tokens) const;
  [[nodiscard]] Tensor logits(int64_t tokens) const { return logits_.slice_rows(0, tokens); }

 private:
  Tensor place(const TensorSpec& spec, const LayerPlan& plan);

  Device& device_;
  Config config_;
  Extent extent_{8, 8};
  Random random_{1};
  std::vector<Buffer> memory_;
  Weights weights_;
  Activations activations_;
  Tensor logits_;
};

}  // namespace rwkv::test
