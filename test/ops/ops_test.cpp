#include "ops/ops.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "test/support.h"

TEST_SUITE_BEGIN("ops");

namespace rwkv::test {
namespace {

/// Operators that only count their calls: what arrives there has passed the checks.
class CountingOps final : public Ops {
 public:
  int calls = 0;

  [[nodiscard]] Layout blocks() const override { return Layout::cpu_blocks; }
  void synchronize() override {}

 private:
  void do_reserve(const Limits&) override {}
  void do_upload(std::byte*, const std::byte*, size_t) override { calls++; }
  void do_download(std::byte*, const std::byte*, size_t) override { calls++; }
  void do_receive(std::byte*, Ops&, const std::byte*, size_t) override { calls++; }
  void do_embed(const Tensor&, const Tensor&, std::span<const int32_t>) override { calls++; }
  void do_layer_norm(const Tensor&, const Tensor&, const Norm&) override { calls++; }
  void do_token_shift(const TokenShift&) override { calls++; }
  void do_matmul(std::span<const Product>) override { calls++; }
  void do_wkv4(const Wkv4&) override { calls++; }
  void do_wkv5(const Wkv5&) override { calls++; }
  void do_wkv7(const Wkv7&) override { calls++; }
};

constexpr int64_t tokens = 3, width = 32;
std::byte memory[1];  // no tensor here is read or written

Tensor matrix(int64_t rows = tokens, int64_t cols = width, DType dtype = DType::f32) {
  return matrix_view(memory, dtype, rows, cols);
}
Tensor vector(int64_t size = width) { return vector_view(memory, DType::f32, size); }
Tensor heads(int64_t count, int64_t size) {
  return {memory, DType::f32, Layout::plain, 3, 0, {count, size, size}, size * size};
}

/// An operand of an operator by its name in messages.
template <class Arguments>
struct Operand {
  const char* name;
  std::function<Tensor&(Arguments&)> of;
  bool gives_sizes = false;  ///< others are blamed when its sizes are wrong
};

/// A tensor made wrong in one way.
struct Fault {
  const char* what;
  void (*make)(Tensor&);
  bool of_size;
};
constexpr Fault faults[] = {
    {"missing", [](Tensor& t) { t = {}; }, false},
    {"fp16", [](Tensor& t) { t.dtype = DType::f16; }, false},
    {"int32", [](Tensor& t) { t.dtype = DType::i32; }, false},
    {"blocks", [](Tensor& t) { t.layout = Layout::cpu_blocks; }, false},
    {"a dimension more", [](Tensor& t) { t.sizes[t.rank++] = 1; }, false},
    {"a dimension less", [](Tensor& t) { t.rank--; }, true},
    {"longer", [](Tensor& t) { t.sizes[0]++; }, true},
    {"shorter", [](Tensor& t) { t.sizes[0]--; }, true},
    {"wider", [](Tensor& t) { t.sizes[t.rank - 1]++; }, true},
    {"narrower", [](Tensor& t) { t.sizes[t.rank - 1]--; }, true},
};

/// The good arguments pass; with each fault of each operand they don't, and the operand is named.
template <class Arguments, class Call>
void check_operands(const std::string& op, const Arguments& good,
                    const std::vector<Operand<Arguments>>& operands, Call call) {
  CountingOps ops;
  CHECK(error_of([&] { call(ops, good); }) == "");
  CHECK(ops.calls == 1);
  for (const auto& operand : operands) {
    for (const Fault& fault : faults) {
      CAPTURE(op);
      CAPTURE(operand.name);
      CAPTURE(fault.what);
      Arguments bad = good;
      fault.make(operand.of(bad));
      std::string message = error_of([&] { call(ops, bad); });
      bool others_blamed = fault.of_size && operand.gives_sizes;
      CHECK(message.starts_with(op + ": " + (others_blamed ? "" : operand.name)));
      CHECK(message.find('\n') == std::string::npos);
    }
  }
  CHECK(ops.calls == 1);
}

}  // namespace

TEST_CASE("embed: checks its operands and the tokens") {
  struct Arguments {
    Tensor out, table;
    std::vector<int32_t> tokens;
  };
  auto call = [](Ops& ops, const Arguments& a) { ops.embed(a.out, a.table, a.tokens); };
  Arguments good{matrix(), matrix(100), {0, 99, 7}};
  check_operands<Arguments>("embed", good, {{"out", [](Arguments& a) -> Tensor& { return a.out; }}}, call);

  CountingOps ops;
  for (DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    good.table.dtype = dtype;
    CHECK(error_of([&] { call(ops, good); }) == "");
  }
  CHECK(ops.calls == 3);
  for (int32_t token : {-1, 100, INT32_MAX, INT32_MIN}) {
    Arguments bad = good;
    bad.tokens[1] = token;
    std::string message = error_of([&] { call(ops, bad); });
    CHECK(message ==
          "token " + std::to_string(token) + " is outside the model's vocabulary of 100 tokens (0 to 99)");
  }
  auto message_for = [&](const Tensor& table) {
    return error_of([&] { ops.embed(good.out, table, good.tokens); });
  };
  CHECK(message_for(matrix(100, width, DType::i8)).starts_with("embed: the table"));
  CHECK(message_for(vector()).starts_with("embed: "));
  CHECK(message_for({}).starts_with("embed: "));
  Tensor packed = matrix(100);
  packed.layout = Layout::input_rows;
  CHECK(message_for(packed).starts_with("embed: the table"));
  CHECK(ops.calls == 3);
}

TEST_CASE("layer_norm: checks its operands") {
  struct Arguments {
    Tensor out, x;
    Norm norm;
  };
  check_operands<Arguments>("layer_norm", {matrix(), matrix(), {vector(), vector()}},
                            {{"out", [](Arguments& a) -> Tensor& { return a.out; }},
                             {"x", [](Arguments& a) -> Tensor& { return a.x; }, true},
                             {"weight", [](Arguments& a) -> Tensor& { return a.norm.weight; }},
                             {"bias", [](Arguments& a) -> Tensor& { return a.norm.bias; }}},
                            [](Ops& ops, const Arguments& a) { ops.layer_norm(a.out, a.x, a.norm); });
}

TEST_CASE("token_shift: checks its operands") {
  struct Arguments {
    TokenShift shift;
    std::vector<Mix> mixes;
  };
  Arguments good{{matrix(), {vector(), vector()}, vector(), matrix(tokens + 1), {}},
                 {{vector(), matrix()}, {vector(), matrix()}}};
  check_operands<Arguments>("token_shift", good,
                            {{"x", [](Arguments& a) -> Tensor& { return a.shift.x; }, true},
                             {"weight", [](Arguments& a) -> Tensor& { return a.shift.norm.weight; }},
                             {"bias", [](Arguments& a) -> Tensor& { return a.shift.norm.bias; }},
                             {"state", [](Arguments& a) -> Tensor& { return a.shift.state; }},
                             {"normalized", [](Arguments& a) -> Tensor& { return a.shift.normalized; }},
                             {"mix", [](Arguments& a) -> Tensor& { return a.mixes[1].mix; }},
                             {"mixed", [](Arguments& a) -> Tensor& { return a.mixes[1].mixed; }}},
                            [](Ops& ops, const Arguments& a) {
                              TokenShift shift = a.shift;
                              shift.mixes = a.mixes;
                              ops.token_shift(shift);
                            });
}

TEST_CASE("matmul: checks its operands, and those alone that the epilogue needs") {
  using Products = std::vector<Product>;
  Tensor weight{memory, DType::bf16, Layout::cpu_blocks, 2, 0, {20, width}, 0};
  Product product{matrix(), weight, matrix(tokens, 20)};
  auto call = [](Ops& ops, const Products& p) { ops.matmul(p); };
  Operand<Products> bias{"bias", [](Products& p) -> Tensor& { return p[1].bias; }};
  Operand<Products> a{"a", [](Products& p) -> Tensor& { return p[1].a; }};
  Operand<Products> b{"b", [](Products& p) -> Tensor& { return p[1].b; }};
  auto check = [&](Epilogue epilogue, const std::vector<Operand<Products>>& needed) {
    Product with = product;
    with.epilogue = epilogue;
    for (const auto& operand : needed) {
      if (operand.name == std::string("bias")) with.bias = vector(20);
      if (operand.name == std::string("a")) with.a = matrix(tokens, 20);
      if (operand.name == std::string("b")) with.b = matrix(tokens, 20);
    }
    check_operands<Products>("matmul", {product, with}, needed, call);
  };
  for (Epilogue e : {Epilogue::none, Epilogue::add, Epilogue::tanh, Epilogue::sigmoid, Epilogue::silu,
                     Epilogue::relu_squared}) {
    check(e, {{"x", [](Products& p) -> Tensor& { return p[1].x; }, true},
              {"out", [](Products& p) -> Tensor& { return p[1].out; }, true}});
  }
  check(Epilogue::gated_add, {a});
  for (Epilogue e : {Epilogue::biased_sigmoid, Epilogue::decay6, Epilogue::decay7}) check(e, {bias});
  check(Epilogue::biased_mix, {bias, a, b});

  CountingOps ops;
  auto message_for = [&](const Tensor& w) {
    Product bad = product;
    bad.weight = w;
    return error_of([&] { ops.matmul({&bad, 1}); });
  };
  for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    for (Layout layout : {Layout::cpu_blocks, Layout::input_rows}) {
      weight.dtype = dtype;
      weight.layout = layout;
      CHECK(message_for(weight) == "");
    }
  }
  for (const Fault& fault : faults) {
    if (fault.what == std::string("fp16") || fault.what == std::string("blocks")) continue;
    CAPTURE(fault.what);
    Tensor bad = weight;
    fault.make(bad);
    CHECK(message_for(bad).starts_with("matmul: the weight must be a packed matrix [20, 32], but is "));
  }
  weight.layout = Layout::plain;
  CHECK(message_for(weight).starts_with("matmul: the weight"));
}

TEST_CASE("wkv4: checks its operands") {
  check_operands<Wkv4>("wkv4", {matrix(), matrix(), matrix(), vector(), vector(), matrix(3), matrix()},
                       {{"r", [](Wkv4& w) -> Tensor& { return w.r; }, true},
                        {"k", [](Wkv4& w) -> Tensor& { return w.k; }},
                        {"v", [](Wkv4& w) -> Tensor& { return w.v; }},
                        {"decay", [](Wkv4& w) -> Tensor& { return w.decay; }},
                        {"first", [](Wkv4& w) -> Tensor& { return w.first; }},
                        {"state", [](Wkv4& w) -> Tensor& { return w.state; }},
                        {"out", [](Wkv4& w) -> Tensor& { return w.out; }}},
                       [](Ops& ops, const Wkv4& w) { ops.wkv4(w); });
}

TEST_CASE("wkv5: checks its operands, with a decay for all tokens or for each, with or without a gate") {
  auto call = [](Ops& ops, const Wkv5& w) { ops.wkv5(w); };
  Wkv5 good{matrix(), matrix(),    matrix(), matrix(), vector(), {vector(), vector()},
            matrix(), heads(4, 8), matrix()};
  std::vector<Operand<Wkv5>> operands = {{"r", [](Wkv5& w) -> Tensor& { return w.r; }, true},
                                         {"k", [](Wkv5& w) -> Tensor& { return w.k; }},
                                         {"v", [](Wkv5& w) -> Tensor& { return w.v; }},
                                         {"decay", [](Wkv5& w) -> Tensor& { return w.decay; }, true},
                                         {"first", [](Wkv5& w) -> Tensor& { return w.first; }},
                                         {"weight", [](Wkv5& w) -> Tensor& { return w.norm.weight; }},
                                         {"bias", [](Wkv5& w) -> Tensor& { return w.norm.bias; }},
                                         {"state", [](Wkv5& w) -> Tensor& { return w.state; }, true},
                                         {"out", [](Wkv5& w) -> Tensor& { return w.out; }}};
  good.decay = vector();
  check_operands("wkv5", good, operands, call);
  good.gate = {};
  CountingOps ops;
  call(ops, good);
  good.gate = matrix();
  good.decay = matrix();
  call(ops, good);
  CHECK(ops.calls == 2);
  good.gate = matrix(tokens - 1);
  CHECK(error_of([&] {
          call(ops, good);
        }).starts_with("wkv5: gate must be fp32 [3, 32], plain, but is fp32 [2, 32]"));
  good.gate = {};
  good.decay = matrix(tokens + 1);
  CHECK(error_of([&] { call(ops, good); }).starts_with("wkv5: decay"));
}

TEST_CASE("wkv7: checks its operands, with v_first and v_gate or without both") {
  auto call = [](Ops& ops, const Wkv7& w) { ops.wkv7(w); };
  Wkv7 good{matrix(),     matrix(), matrix(), matrix(), matrix(), matrix(),
            matrix(),     matrix(), vector(), vector(), vector(), {vector(), vector()},
            heads(2, 16), matrix()};
  std::vector<Operand<Wkv7>> operands = {{"r", [](Wkv7& w) -> Tensor& { return w.r; }, true},
                                         {"decay", [](Wkv7& w) -> Tensor& { return w.decay; }},
                                         {"k", [](Wkv7& w) -> Tensor& { return w.k; }},
                                         {"v", [](Wkv7& w) -> Tensor& { return w.v; }},
                                         {"a", [](Wkv7& w) -> Tensor& { return w.a; }},
                                         {"g", [](Wkv7& w) -> Tensor& { return w.g; }},
                                         {"v_gate", [](Wkv7& w) -> Tensor& { return w.v_gate; }},
                                         {"k_k", [](Wkv7& w) -> Tensor& { return w.k_k; }},
                                         {"k_a", [](Wkv7& w) -> Tensor& { return w.k_a; }},
                                         {"r_k", [](Wkv7& w) -> Tensor& { return w.r_k; }},
                                         {"weight", [](Wkv7& w) -> Tensor& { return w.norm.weight; }},
                                         {"bias", [](Wkv7& w) -> Tensor& { return w.norm.bias; }},
                                         {"state", [](Wkv7& w) -> Tensor& { return w.state; }, true},
                                         {"out", [](Wkv7& w) -> Tensor& { return w.out; }}};
  check_operands("wkv7", good, operands, call);
  CountingOps ops;
  good.v_first = matrix(tokens, width + 1);
  CHECK(error_of([&] { call(ops, good); }).starts_with("wkv7: v_first"));
  good.v_first = {};
  CHECK(error_of([&] {
          call(ops, good);
        }).starts_with("wkv7: v_first must be fp32 [3, 32], plain, but is missing"));
  good.v_gate = {};
  CHECK(error_of([&] { call(ops, good); }) == "");
}

TEST_CASE("wkv5 and wkv7: heads that do not make up the width, or are too large, are refused") {
  struct {
    int64_t width, count, size;
    bool good;
  } cases[] = {{32, 4, 8, true},  {32, 4, 7, false},    {32, 5, 8, false},
               {32, 0, 8, false}, {0, 0, 8, false},     {512, 2, 256, true},
               {0, 5, 0, false},  {514, 2, 257, false}, {32, -4, -8, false}};
  for (auto c : cases) {
    CAPTURE(c.width);
    CAPTURE(c.count);
    CAPTURE(c.size);
    Tensor m = matrix(tokens, c.width), v = vector(c.width), state = heads(c.count, c.size);
    CountingOps ops;
    CHECK(error_of([&] {
            ops.wkv5({m, m, m, v, v, {v, v}, m, state, m});
          }).starts_with("wkv5: the state") != c.good);
    CHECK(error_of([&] {
            ops.wkv7({m, m, m, m, m, m, m, m, v, v, v, {v, v}, state, m});
          }).starts_with("wkv7: the state") != c.good);
    CHECK(ops.calls == (c.good ? 2 : 0));
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
