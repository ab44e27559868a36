// After reserve() operators allocate nothing.
#include <doctest/doctest.h>

#include <memory>

#include "core/checked.h"
#include "cpu/cpu.h"
#include "test/allocations.h"
#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

constexpr int64_t width = 256, heads = 4, head_size = 64;

/// One tensor of each kind that the operators below need.
struct Tensors {
  Tensors(Device& device, int64_t tokens, Random& random)
      : x(device, {tokens, width}, random.normals(tokens * width)),
        more(device, {tokens, width}, random.uniforms(tokens * width, 0, 1)),
        out(device, {tokens, width}, random.normals(tokens * width)),
        normalized(device, {tokens + 1, width}, random.normals((tokens + 1) * width)),
        vector(device, {width}, random.uniforms(width, 0, 1)),
        state(device, {width}, random.normals(width)),
        state4(device, {3, width}, random.uniforms(3 * width, 0, 1)),
        state5(device, {heads, head_size, head_size}, random.normals(width * head_size)),
        host(cpu::open(1)),
        table(*host, {10, width}, random.normals(10 * width)) {}
  DeviceTensor x, more, out, normalized, vector, state, state4, state5;
  std::unique_ptr<Device> host;
  DeviceTensor table;
};

void run_all(Ops& ops, const Tensors& t, std::span<const Product> products, std::span<const int32_t> tokens) {
  Norm norm{t.vector, t.vector};
  const Mix mixes[] = {{t.vector, t.out}, {t.vector, t.more}};
  ops.embed(t.x, t.table, tokens);
  ops.layer_norm(t.x, t.x, norm);
  ops.token_shift({t.x, norm, t.state, t.normalized, mixes});
  ops.matmul(products);
  ops.wkv4({t.x, t.more, t.more, t.vector, t.vector, t.state4, t.out});
  ops.wkv5({t.x, t.more, t.more, t.vector, t.vector, norm, t.more, t.state5, t.out});
  ops.wkv7({t.x,
            t.more,
            t.more,
            t.more,
            t.more,
            t.more,
            {},
            {},
            t.vector,
            t.vector,
            t.vector,
            norm,
            t.state5,
            t.out});
  ops.synchronize();
}

}  // namespace

void check_allocations(const Implementation& implementation) {
  {
    uint64_t before = allocations();
    auto counted = std::make_unique<int>(1);
    REQUIRE(allocations() > before);
  }
  for (size_t d = 0; d < implementation.size(); d++) {
    Device& device = implementation[d].device;
    CAPTURE(device.description());
    auto ops = device.make_ops();
    Random random(5);
    std::vector<std::unique_ptr<Tensors>> tensors;
    std::vector<std::unique_ptr<OnDevice>> on_device;
    std::vector<std::vector<Product>> products(2);
    std::vector<int32_t> tokens(20, 3);
    Ops::Limits limits{.tokens = 20, .product_outputs = 150, .transfer_bytes = 20 * width * 4};
    for (int64_t count : {1, 20}) {
      tensors.push_back(std::make_unique<Tensors>(device, count, random));
      int64_t inputs = 0, seed = 0;
      for (Layout layout : implementation.layouts()) {
        for (DType dtype : weight_types) {
          for (int64_t width : {130, 256, 30}) {
            ProductCase c({layout, dtype, 150, width}, Epilogue::none, count, seed++);
            on_device.push_back(std::make_unique<OnDevice>(device, c, Range{0, count}));
            products[count == 1 ? 0 : 1].push_back(on_device.back()->product());
            inputs += round_up(width, 64);
          }
        }
      }
      limits.product_inputs = inputs;
    }
    ops->reserve(limits);
    uint64_t before = allocations();
    for (int i = 0; i < 2; i++) {
      for (size_t k : {1, 0})
        run_all(*ops, *tensors[k], products[k], std::span(tokens).first(k == 1 ? 20 : 1));
    }
    CHECK(allocations() == before);
  }
}

}  // namespace rwkv::test
