// Operators that nearly can run in one launch, but must not.
#include <doctest/doctest.h>

#include <memory>

#include "cuda/cuda.h"
#include "test/cuda/device_under_test.h"
#include "test/cuda/small_model.h"

namespace rwkv::test {
namespace {

constexpr int64_t heads = 2, head_size = 16, width = heads * head_size, rank = 24;

/// Tensors for operators of one run: the same numbers in each.
class Stage {
 public:
  Stage(Device& device, Ops& ops) : ops(ops), device_(device) {}

  Ops& ops;

  Tensor vector(int64_t size = width) {
    return keep(std::make_unique<DeviceTensor>(device_, std::initializer_list<int64_t>{size},
                                               random_.uniforms(size, 0.1, 0.9)));
  }
  Tensor matrix(int64_t rows = 1, int64_t cols = width) {
    return keep(std::make_unique<DeviceTensor>(device_, std::initializer_list<int64_t>{rows, cols},
                                               random_.uniforms(rows * cols, 0.1, 0.9)));
  }
  Norm norm() { return {vector(), vector()}; }
  Wkv5 wkv5(int64_t tokens = 1) {
    auto m = [&] { return matrix(tokens); };
    return {m(), m(), m(), m(), vector(), norm(), m(), state(), m()};
  }
  Wkv7 wkv7(int64_t tokens = 1) {
    auto m = [&] { return matrix(tokens); };
    return {m(), m(), m(), m(), m(), m(), m(), m(), vector(), vector(), vector(), norm(), state(), m()};
  }
  Product product(const Tensor& out, Layout layout = Layout::cuda_blocks, DType dtype = DType::f16) {
    int64_t outputs = out.cols();
    PackedMatrix packed({layout, dtype, outputs, rank}, random_.normals(outputs * rank, 0.3));
    matrices_.push_back(std::make_unique<DeviceMatrix>(device_, packed));
    return {matrix(1, rank), *matrices_.back(), out, Epilogue::biased_sigmoid, vector(outputs)};
  }
  void matmul(const std::vector<Product>& products) { ops.matmul(products); }

  /// All that there is, when the operators have run, but for what `left_out` has, which may stay unwritten.
  std::vector<float> values(const std::vector<Tensor>& left_out = {}) {
    ops.synchronize();
    std::vector<float> all;
    for (const auto& t : tensors_) {
      if (std::ranges::any_of(left_out, [&](const Tensor& l) { return l.data == t->view().data; })) continue;
      std::vector<float> values = t->values();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  Tensor state() {
    auto t =
        std::make_unique<DeviceTensor>(device_, std::initializer_list<int64_t>{heads, head_size, head_size},
                                       random_.normals(width * head_size));
    return keep(std::move(t));
  }
  Tensor keep(std::unique_ptr<DeviceTensor> t) {
    tensors_.push_back(std::move(t));
    return *tensors_.back();
  }

  Device& device_;
  Random random_{1};
  std::vector<std::unique_ptr<DeviceTensor>> tensors_;
  std::vector<std::unique_ptr<DeviceMatrix>> matrices_;
};

/// Whether the operators give the bits that they give one by one.
template <class Run>
void check_as_separate(Run run) {
  on_device(4, [&] {
    auto device = cuda::open(0);
    auto ops = device->make_ops();
    Separately separately(*ops);
    Stage together(*device, *ops), apart(*device, separately);
    std::vector<float> expected = run(apart);
    CHECK(same_bits(run(together), expected));
  });
}

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("fusion: inputs of a recurrence, some of them or all, with any function") {
  for (size_t mask = 1; mask < 16; mask++) {
    CAPTURE(mask);
    check_as_separate([mask](Stage& s) {
      Wkv7 w = s.wkv7();
      const Tensor inputs[] = {w.decay, w.a, w.g, w.v_gate};
      constexpr Epilogue functions[] = {Epilogue::decay7, Epilogue::sigmoid, Epilogue::none, Epilogue::tanh};
      std::vector<Product> products;
      std::vector<Tensor> unwritten;
      for (size_t i = 0; i < 4; i++) {
        if ((mask >> i & 1) == 0) continue;
        products.push_back(s.product(inputs[i]));
        products.back().epilogue = functions[(i + mask) % 4];
        unwritten.push_back(inputs[i]);
      }
      s.matmul(products);
      s.ops.wkv7(w);
      return s.values(unwritten);
    });
  }
}

TEST_CASE("fusion: products of integers run in a launch of their own") {
  for (DType dtype : {DType::i8, DType::i4}) {
    check_as_separate([dtype](Stage& s) {
      Wkv7 w = s.wkv7();
      s.matmul({s.product(w.decay), s.product(w.a, Layout::cuda_blocks, dtype)});
      s.ops.wkv7(w);
      return s.values();
    });
  }
}

TEST_CASE("fusion: an input that something else reads as well is written") {
  check_as_separate([](Stage& s) {
    Wkv7 w = s.wkv7();
    w.r = w.decay;
    s.matmul({s.product(w.decay)});
    s.ops.wkv7(w);
    return s.values();
  });
  check_as_separate([](Stage& s) {
    Wkv7 w = s.wkv7();
    w.g = w.a;
    s.matmul({s.product(w.a)});
    s.ops.wkv7(w);
    return s.values();
  });
  check_as_separate([](Stage& s) {
    Wkv5 w = s.wkv5();
    w.gate = w.decay;
    s.matmul({s.product(w.decay)});
    s.ops.wkv5(w);
    return s.values();
  });
}

TEST_CASE("fusion: products that read what the recurrence writes come before it") {
  check_as_separate([](Stage& s) {
    Wkv7 w = s.wkv7();
    Product p = s.product(w.decay);
    p.x = w.out.slice_cols(3, rank);
    s.matmul({p});
    s.ops.wkv7(w);
    return s.values({w.decay});
  });
  check_as_separate([](Stage& s) {
    Wkv7 w = s.wkv7();
    Product p = s.product(w.a);
    p.bias = vector_view(w.out.data, DType::f32, width);
    s.matmul({p});
    s.ops.wkv7(w);
    return s.values({w.a});
  });
  check_as_separate([](Stage& s) {
    Wkv5 w = s.wkv5();
    Product p = s.product(w.decay);
    p.x = matrix_view(w.state.row(1), DType::f32, 1, rank);
    s.matmul({p});
    s.ops.wkv5(w);
    return s.values({w.decay});
  });
}

TEST_CASE("fusion: products of other kinds are launched before the recurrence") {
  for (Epilogue epilogue : {Epilogue::add, Epilogue::gated_add, Epilogue::biased_mix}) {
    CAPTURE(static_cast<int>(epilogue));
    check_as_separate([epilogue](Stage& s) {
      Wkv7 w = s.wkv7();
      Product p = s.product(w.g);
      p.epilogue = epilogue;
      p.a = s.matrix();
      p.b = s.matrix();
      s.matmul({p});
      s.ops.wkv7(w);
      return s.values();
    });
  }
  check_as_separate([](Stage& s) {
    Wkv7 w = s.wkv7();
    s.matmul({s.product(w.decay, Layout::input_rows), s.product(w.a)});
    s.ops.wkv7(w);
    return s.values();
  });
  check_as_separate([](Stage& s) {  // one of them is no input that the recurrence can compute
    Wkv7 w = s.wkv7();
    s.matmul({s.product(w.decay), s.product(w.k)});
    s.ops.wkv7(w);
    return s.values();
  });
  check_as_separate([](Stage& s) {  // only a part of an input
    Wkv7 w = s.wkv7();
    s.matmul({s.product(w.a.slice_cols(0, 10))});
    s.ops.wkv7(w);
    return s.values();
  });
  check_as_separate([](Stage& s) {  // only the first token
    Wkv7 w = s.wkv7(2);
    s.matmul({s.product(w.decay.slice_rows(0, 1))});
    s.ops.wkv7(w);
    return s.values();
  });
  check_as_separate([](Stage& s) {
    Wkv5 w = s.wkv5(2);
    s.matmul({s.product(w.decay.slice_rows(0, 1))});
    s.ops.wkv5(w);
    return s.values();
  });
}

TEST_CASE("fusion: a decay for all tokens is an input of theirs") {
  check_as_separate([](Stage& s) {
    Wkv5 w = s.wkv5();
    s.matmul({s.product(w.decay)});
    w.decay = vector_view(w.decay.data, DType::f32, width);
    s.ops.wkv5(w);
    return s.values({w.decay});
  });
}

TEST_CASE("fusion: a norm behind a product that is not of its whole input alone") {
  for (Epilogue epilogue : {Epilogue::none, Epilogue::add, Epilogue::gated_add, Epilogue::tanh}) {
    CAPTURE(static_cast<int>(epilogue));
    check_as_separate([epilogue](Stage& s) {
      Tensor x = s.matrix();
      Product p = s.product(x);
      p.epilogue = epilogue;
      p.a = s.matrix();
      s.matmul({p});
      s.ops.layer_norm(s.matrix(), x, s.norm());
      return s.values();
    });
  }
  check_as_separate([](Stage& s) {  // several products
    Tensor x = s.matrix();
    s.matmul({s.product(x), s.product(s.matrix())});
    s.ops.layer_norm(x, x, s.norm());
    return s.values();
  });
  check_as_separate([](Stage& s) {  // another tensor
    s.matmul({s.product(s.matrix())});
    Tensor x = s.matrix();
    s.ops.token_shift({x, s.norm(), s.vector(), s.matrix(2), {}});
    return s.values();
  });
  check_as_separate([](Stage& s) {  // a part of it
    Tensor x = s.matrix(1, width + 8);
    s.matmul({s.product(x)});
    s.ops.layer_norm(s.matrix(), x.slice_cols(0, width), s.norm());
    return s.values();
  });
  check_as_separate([](Stage& s) {  // and more
    Tensor x = s.matrix(1, width);
    s.matmul({s.product(x.slice_cols(0, width - 8))});
    s.ops.layer_norm(x, x, s.norm());
    return s.values();
  });
  check_as_separate([](Stage& s) {  // several tokens of which it is one
    Tensor x = s.matrix(3);
    s.matmul({s.product(x.slice_rows(0, 1))});
    s.ops.layer_norm(x, x, s.norm());
    return s.values();
  });
}

TEST_CASE("fusion: every operator comes after the products before it") {
  check_as_separate([](Stage& s) {
    Tensor x = s.matrix(), y = s.matrix(), state = s.matrix(3);
    s.matmul({s.product(x)});
    s.ops.wkv4({x, y, x, s.vector(), s.vector(), state, y});
    s.matmul({s.product(y), s.product(x)});
    s.matmul({s.product(x), s.product(state.slice_rows(1, 1))});
    return s.values();
  });
}

TEST_SUITE_END();

}  // namespace rwkv::test
