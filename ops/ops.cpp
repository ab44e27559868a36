#include "ops/ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <initializer_list>

#include "core/error.h"
#include "ops/layout.h"

namespace rwkv {
namespace {

struct Expected {
  const char* name;
  const Tensor& tensor;
  std::initializer_list<int64_t> sizes;
};

std::string sizes_text(std::span<const int64_t> sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

// Plain fp32 with exactly these sizes; only the first dimension may have a stride.
void check(const char* op, std::initializer_list<Expected> expected) {
  for (const auto& [name, tensor, sizes] : expected) {
    std::span<const int64_t> want(sizes.begin(), sizes.size()), have(tensor.sizes.data(), tensor.rank);
    bool equal = tensor.data != nullptr && tensor.dtype == DType::f32 && tensor.layout == Layout::plain &&
                 want.size() == have.size() && std::equal(want.begin(), want.end(), have.begin());
    if (!equal) {
      throw Error(fmt::format("{}: {} must be fp32 {}, plain, but is {} {}", op, name, sizes_text(want),
                              tensor.data == nullptr ? "missing" : name_of(tensor.dtype), sizes_text(have)));
    }
  }
}

// The state of a recurrence, [heads, N, N], and the width that its heads must make up.
void check_heads(const char* op, const Tensor& state, int64_t width) {
  int64_t heads = state.sizes[0], head_size = state.sizes[1];
  if (heads < 1 || head_size < 1 || head_size > max_head_size || heads * head_size != width) {
    throw Error(
        fmt::format("{}: the state has {} heads of {} channels, which must be {} channels together and "
                    "at most {} each",
                    op, heads, head_size, width, max_head_size));
  }
}

void check_matrix(const Product& p, Layout blocks) {
  bool known =
      p.weight.data != nullptr && p.weight.rank == 2 && is_of(blocks, p.weight.layout) &&
      (p.weight.dtype == DType::bf16 ||
       (p.weight.layout != Layout::cpu_coded &&
        (p.weight.dtype == DType::f32 || p.weight.dtype == DType::f16 || is_quantized(p.weight.dtype))));
  if (!known || p.weight.sizes[1] != p.x.cols() || p.weight.sizes[0] != p.out.cols()) {
    throw Error(fmt::format("matmul: the weight must be a packed matrix [{}, {}], but is {} [{}, {}]",
                            p.out.cols(), p.x.cols(), name_of(p.weight.dtype), p.weight.sizes[0],
                            p.weight.sizes[1]));
  }
}

void check_epilogue(const Product& p, int64_t tokens) {
  int64_t outputs = p.weight.sizes[0];
  switch (p.epilogue) {
    case Epilogue::biased_mix:
      check("matmul", {{"a", p.a, {tokens, outputs}}, {"b", p.b, {tokens, outputs}}});
      [[fallthrough]];
    case Epilogue::biased_sigmoid:
    case Epilogue::decay6:
    case Epilogue::decay7:
      check("matmul", {{"bias", p.bias, {outputs}}});
      break;
    case Epilogue::gated_add:
      check("matmul", {{"a", p.a, {tokens, outputs}}});
      break;
    default:
      break;
  }
}

}  // namespace

namespace {

size_t dense_bytes(const char* op, const Tensor& t) {
  bool dense =
      t.data != nullptr && t.layout == Layout::plain && (t.rank < 2 || t.rows() < 2 || t.stride == t.cols());
  if (!dense || t.dtype != DType::f32)
    throw Error(fmt::format("{}: the tensor must be fp32, plain and dense", op));
  return static_cast<size_t>(t.elements()) * 4;
}

}  // namespace

void Ops::upload(const Tensor& to, const float* host) {
  do_upload(to.data, reinterpret_cast<const std::byte*>(host), dense_bytes("upload", to));
}

void Ops::download(float* host, const Tensor& from) {
  do_download(reinterpret_cast<std::byte*>(host), from.data, dense_bytes("download", from));
}

void Ops::receive(const Tensor& to, Ops& source, const Tensor& from) {
  size_t bytes = dense_bytes("receive", to);
  if (dense_bytes("receive", from) != bytes) throw Error("receive: the tensors differ in size");
  do_receive(to.data, source, from.data, bytes);
}

void Ops::do_repeat(std::span<const void* const>, const std::function<void()>& work) { work(); }

// --- Times ---
namespace {

OperatorTime named(const char* name) { return {.name = name, .calls = 1}; }

// "matmul 3 x 1024x1024 + 64x1024"
OperatorTime named(std::span<const Product> products) {
  OperatorTime time{.name = "matmul", .calls = 1};
  for (size_t i = 0, end = 0; i < products.size(); i = end) {
    const auto& sizes = products[i].weight.sizes;
    while (end < products.size() && products[end].weight.sizes == sizes) end++;
    time.name += fmt::format("{}{}{}x{}", i == 0 ? " " : " + ",
                             end - i > 1 ? fmt::format("{} x ", end - i) : "", sizes[0], sizes[1]);
  }
  for (const Product& p : products) time.weight_bytes += static_cast<uint64_t>(layout_of(p.weight).bytes());
  return time;
}

}  // namespace

template <class Name, class Work>
void Ops::run(Name name, Work work) {
  if (times_ == nullptr) return work();
  using Clock = std::chrono::steady_clock;
  synchronize();
  const auto start = Clock::now();
  work();
  synchronize();
  OperatorTime time = named(name);
  time.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  times_->add(time);
}

std::vector<OperatorTime> OperatorTimes::sorted() const {
  std::vector<OperatorTime> all;
  for (const auto& [name, time] : times_) all.push_back(time);
  std::ranges::stable_sort(all, std::ranges::greater(), &OperatorTime::seconds);
  return all;
}

// --- Operators ---

void Ops::embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) {
  auto count = static_cast<int64_t>(tokens.size());
  check("embed", {{"out", out, {count, table.sizes[1]}}});
  bool floating = table.dtype == DType::f32 || table.dtype == DType::f16 || table.dtype == DType::bf16;
  if (!floating || table.rank != 2 || table.layout != Layout::plain) {
    throw Error("embed: the table must be a plain matrix of fp32, fp16 or bf16");
  }
  for (int32_t token : tokens) {
    if (token < 0 || token >= table.sizes[0]) {
      throw Error(fmt::format("token {} is outside the model's vocabulary of {} tokens (0 to {})", token,
                              table.sizes[0], table.sizes[0] - 1));
    }
  }
  run("embed", [&] { do_embed(out, table, tokens); });
}

void Ops::layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) {
  int64_t width = x.cols();
  check("layer_norm", {{"x", x, {x.rows(), width}},
                       {"out", out, {x.rows(), width}},
                       {"weight", norm.weight, {width}},
                       {"bias", norm.bias, {width}}});
  run("layer_norm", [&] { do_layer_norm(out, x, norm); });
}

void Ops::token_shift(const TokenShift& s) {
  int64_t tokens = s.x.rows(), width = s.x.cols();
  check("token_shift", {{"x", s.x, {tokens, width}},
                        {"weight", s.norm.weight, {width}},
                        {"bias", s.norm.bias, {width}},
                        {"state", s.state, {width}},
                        {"normalized", s.normalized, {tokens + 1, width}}});
  for (const Mix& m : s.mixes) {
    check("token_shift", {{"mix", m.mix, {width}}, {"mixed", m.mixed, {tokens, width}}});
  }
  run("token_shift", [&] { do_token_shift(s); });
}

void Ops::matmul(std::span<const Product> products) {
  for (const Product& p : products) {
    int64_t tokens = products[0].x.rows();
    check("matmul", {{"x", p.x, {tokens, p.x.cols()}}, {"out", p.out, {tokens, p.out.cols()}}});
    check_matrix(p, blocks());
    check_epilogue(p, tokens);
  }
  run(products, [&] { do_matmul(products); });
}

void Ops::wkv4(const Wkv4& w) {
  int64_t tokens = w.r.rows(), width = w.r.cols();
  check("wkv4", {{"r", w.r, {tokens, width}},
                 {"k", w.k, {tokens, width}},
                 {"v", w.v, {tokens, width}},
                 {"decay", w.decay, {width}},
                 {"first", w.first, {width}},
                 {"state", w.state, {3, width}},
                 {"out", w.out, {tokens, width}}});
  run("wkv4", [&] { do_wkv4(w); });
}

void Ops::wkv5(const Wkv5& w) {
  int64_t tokens = w.r.rows(), width = w.r.cols(), heads = w.state.sizes[0], head_size = w.state.sizes[1];
  check("wkv5", {{"r", w.r, {tokens, width}},
                 {"k", w.k, {tokens, width}},
                 {"v", w.v, {tokens, width}},
                 {"first", w.first, {width}},
                 {"weight", w.norm.weight, {width}},
                 {"bias", w.norm.bias, {width}},
                 {"state", w.state, {heads, head_size, head_size}},
                 {"out", w.out, {tokens, width}}});
  if (w.decay.rank == 2) {
    check("wkv5", {{"decay", w.decay, {tokens, width}}});
  } else {
    check("wkv5", {{"decay", w.decay, {width}}});
  }
  if (w.gate) check("wkv5", {{"gate", w.gate, {tokens, width}}});
  check_heads("wkv5", w.state, width);
  run("wkv5", [&] { do_wkv5(w); });
}

void Ops::wkv7(const Wkv7& w) {
  int64_t tokens = w.r.rows(), width = w.r.cols(), heads = w.state.sizes[0], head_size = w.state.sizes[1];
  check("wkv7", {{"r", w.r, {tokens, width}},
                 {"decay", w.decay, {tokens, width}},
                 {"k", w.k, {tokens, width}},
                 {"v", w.v, {tokens, width}},
                 {"a", w.a, {tokens, width}},
                 {"g", w.g, {tokens, width}},
                 {"k_k", w.k_k, {width}},
                 {"k_a", w.k_a, {width}},
                 {"r_k", w.r_k, {width}},
                 {"weight", w.norm.weight, {width}},
                 {"bias", w.norm.bias, {width}},
                 {"state", w.state, {heads, head_size, head_size}},
                 {"out", w.out, {tokens, width}}});
  if (w.v_first || w.v_gate) {
    check("wkv7", {{"v_first", w.v_first, {tokens, width}}, {"v_gate", w.v_gate, {tokens, width}}});
  }
  check_heads("wkv7", w.state, width);
  run("wkv7", [&] { do_wkv7(w); });
}

}  // namespace rwkv
