// A workbench for kernels: times operators on the shapes that one asks for, beside what the machine can do.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <vector>

#include "apps/common/limits.h"
#include "apps/common/program.h"
#include "core/error.h"
#include "cpu/cpu.h"
#include "cpu/features.h"
#include "ops/coding.h"
#include "ops/layout.h"
#include "tools/peak.h"

namespace rwkv::apps {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t beyond_caches = int64_t{256} << 20;  // bytes of weights that take turns

struct Options {
  std::vector<std::string> operators = {"matmul", "token_shift", "wkv4", "wkv5", "wkv7"};
  std::vector<std::string> shapes = {"2048x2048", "8192x2048", "2048x8192"};
  std::vector<std::string> types = {"fp32", "fp16", "bf16", "int8", "int4"};
  std::vector<std::string> layouts = {"blocks", "coded", "rows"};
  std::vector<int64_t> tokens = {1, 256};
  int64_t width = 2048, head_size = 64;
  double zeros = 0, seconds = 0.3;
  int threads = 0;
  bool list = false;
};

const std::map<std::string, Layout> layouts = {
    {"blocks", Layout::cpu_blocks}, {"coded", Layout::cpu_coded}, {"rows", Layout::input_rows}};
const std::map<std::string, DType> dtypes = {{"fp32", DType::f32},
                                             {"fp16", DType::f16},
                                             {"bf16", DType::bf16},
                                             {"int8", DType::i8},
                                             {"int4", DType::i4}};

/// Of "2048x8192".
MatrixLayout shape_of(const std::string& text) {
  MatrixLayout m;
  char cross = 0;
  std::istringstream in(text);
  in >> m.outputs >> cross >> m.inputs;
  constexpr int64_t limit = 1 << 24;
  if (!in || in.peek() != EOF || cross != 'x' || m.outputs < 1 || m.outputs > limit || m.inputs < 1 ||
      m.inputs > limit) {
    throw UsageError(
        fmt::format("--shapes {}: a shape is OUTPUTSxINPUTS, such as 2048x8192", printable(text)));
  }
  return m;
}

float random_number() {
  static uint64_t random = 1;
  random = random * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(random >> 40) * 0x1p-23f - 1;
}

/// A tensor with numbers in (0, 1), which suit every operand, and its memory.
struct Operand {
  Operand(Device& device, std::initializer_list<int64_t> sizes) {
    tensor = {nullptr, DType::f32, Layout::plain, static_cast<uint8_t>(sizes.size()), device.id(), {}, 1};
    std::copy(sizes.begin(), sizes.end(), tensor.sizes.begin());
    for (uint8_t i = 1; i < tensor.rank; i++) tensor.stride *= tensor.sizes[i];
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    for (float& v : values) v = (random_number() + 1) / 2;
    put(device, values);
  }
  void put(Device& device, const std::vector<float>& values) {
    size_t bytes = values.size() * 4;
    memory = device.allocate(bytes);
    tensor.data = memory.data();
    device.copy_in(tensor.data, reinterpret_cast<const std::byte*>(values.data()), bytes);
  }
  operator const Tensor&() const { return tensor; }  // NOLINT: it stands for its tensor

  Buffer memory;
  Tensor tensor;
};

/// Matrices of one form, as many as are needed for the part of them that is read to outgrow the caches, but
/// at most eight times as many as if all were read. All units have the same bytes.
struct Matrices {
  Matrices(Device& device, const MatrixLayout& m, double read_part) {
    const auto read_bytes = static_cast<int64_t>(static_cast<double>(m.bytes()) * std::max(read_part, 0.125));
    std::vector<float> tile(static_cast<size_t>(m.tile_rows(0) * m.tile_cols()));
    for (float& v : tile) v = random_number();
    std::vector<std::byte> packed(static_cast<size_t>(m.bytes()));
    if (m.layout == Layout::cpu_coded) {
      const MatrixLayout blocks{Layout::cpu_blocks, m.dtype, m.outputs, m.inputs};
      std::vector<std::byte> block(static_cast<size_t>(blocks.unit_bytes()));
      pack_unit(blocks, 0, tile.data(), block.data());
      encode_block(m, block.data(), packed.data());
    } else {
      pack_unit(m, 0, tile.data(), packed.data());
    }
    for (int64_t u = 1; u < m.units(); u++) {
      std::memcpy(packed.data() + u * m.unit_bytes(), packed.data(), static_cast<size_t>(m.unit_bytes()));
    }
    for (int64_t i = 0; i < std::max<int64_t>(1, beyond_caches / std::max<int64_t>(128, read_bytes)); i++) {
      memory.push_back(device.allocate(packed.size()));
      device.copy_in(memory.back().data(), packed.data(), packed.size());
      tensors.push_back(packed_view(m, memory.back().data()));
    }
  }
  std::vector<Buffer> memory;
  std::vector<Tensor> tensors;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), device_(cpu::open(options.threads)), ops_(device_->make_ops()) {
    std::string set = cpu::choose_kernels().name;
    read_limit_ = measure_read_bandwidth(device_->threads());
    for (bool pairs : {false, true}) peak_[pairs] = measure_arithmetic_peak(set, pairs, device_->threads());
    fmt::print("{}: reads {:.1f} GB/s, multiplies and adds fp32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s\n",
               device_->description(), read_limit_ / 1e9, peak_[0] / 1e9, peak_[1] / 1e9);
    fmt::print("{:<12} {:>12} {:<5} {:<7} {:>6} {:>10} {:>7} {:>5} {:>9} {:>5}\n", "operator", "shape",
               "type", "layout", "tokens", "us", "GB/s", "", "GFLOP/s", "");
  }

  void run() {
    const std::map<std::string, std::function<void(int64_t)>> operators = {
        {"matmul", [this](int64_t t) { matmul(t); }},
        {"token_shift", [this](int64_t t) { token_shift(t); }},
        {"wkv4", [this](int64_t t) { wkv4(t); }},
        {"wkv5", [this](int64_t t) { wkv5(t); }},
        {"wkv7", [this](int64_t t) { wkv7(t); }}};
    for (const std::string& name : options_.operators) {
      for (int64_t tokens : options_.tokens) operators.at(name)(tokens);
    }
  }

 private:
  /// The best time of `action`, and what it means. `bytes` are those that must come from memory.
  void report(const std::string& what, int64_t tokens, double bytes, double operations, bool bf16_pairs,
              const std::function<void()>& action) const {
    double best = 1e9;
    auto end = Clock::now() + std::chrono::duration<double>(options_.seconds);
    for (int i = 0; i < 3 || Clock::now() < end; i++) {
      auto start = Clock::now();
      action();
      best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    double rate = bytes / best, speed = operations / best;
    fmt::print("{} {:>6} {:>10.1f} {:>7.2f} {:>4.0f}% {:>9.1f} {:>4.0f}%\n", what, tokens, best * 1e6,
               rate / 1e9, 100 * rate / read_limit_, speed / 1e9, 100 * speed / peak_[bf16_pairs]);
    std::fflush(stdout);
  }

  void matmul(int64_t tokens) {
    for (const std::string& shape : options_.shapes) {
      for (const std::string& layout : options_.layouts) {
        for (const std::string& type : options_.types) product(shape, layout, type, tokens);
      }
    }
  }

  void product(const std::string& shape, const std::string& layout, const std::string& type, int64_t tokens) {
    MatrixLayout m = shape_of(shape);
    m.layout = layouts.at(layout);
    m.dtype = dtypes.at(type);
    if (m.layout == Layout::cpu_coded && m.dtype != DType::bf16) return;
    // Several tokens have inputs of their own: together they read nearly all rows.
    const bool skips = m.layout == Layout::input_rows && tokens == 1;
    Matrices weights(*device_, m, skips ? 1 - options_.zeros : 1);
    Operand x(*device_, {tokens, m.inputs}), out(*device_, {tokens, m.outputs});
    std::vector<float> values(static_cast<size_t>(x.tensor.elements()));
    for (float& v : values) v = (random_number() + 1) / 2 < options_.zeros ? 0 : random_number();
    x.put(*device_, values);
    size_t turn = 0;
    report(fmt::format("{:<12} {:>12} {:<5} {:<7}", "matmul", shape, type, layout), tokens,
           static_cast<double>(m.bytes()), 2.0 * static_cast<double>(m.outputs * m.inputs * tokens),
           m.dtype == DType::bf16 && m.layout != Layout::input_rows, [&] {
             Product p{x, weights.tensors[turn++ % weights.tensors.size()], out};
             ops_->matmul({&p, 1});
           });
  }

  /// An operator on rows of options_.width values: `operations` are those for one value of one token.
  void rows(const std::string& name, int64_t tokens, int64_t values, double operations,
            const std::function<void()>& action) const {
    double work = static_cast<double>(tokens * options_.width);
    report(fmt::format("{:<12} {:>12} {:<5} {:<7}", name, options_.width, "fp32", ""), tokens,
           static_cast<double>(values) * 4, work * operations, false, action);
  }

  void token_shift(int64_t tokens) {
    int64_t width = options_.width;
    Device& d = *device_;
    Operand x(d, {tokens, width}), vector(d, {width}), state(d, {width}), normalized(d, {tokens + 1, width});
    std::vector<Operand> mixed;
    std::vector<Mix> mixes;
    for (int i = 0; i < 6; i++) mixed.emplace_back(d, std::initializer_list<int64_t>{tokens, width});
    for (const Operand& m : mixed) mixes.push_back({vector, m});
    rows("token_shift", tokens, 8 * tokens * width, 8 + 6 * 3, [&] {
      ops_->token_shift({x, {vector, vector}, state, normalized, mixes});
    });
  }

  void wkv4(int64_t tokens) {
    int64_t width = options_.width;
    Device& d = *device_;
    Operand r(d, {tokens, width}), k(d, {tokens, width}), v(d, {tokens, width}), out(d, {tokens, width});
    Operand decay(d, {width}), first(d, {width}), state(d, {3, width});
    decay.put(d, std::vector<float>(static_cast<size_t>(width), -0.5f));
    rows("wkv4", tokens, 4 * tokens * width, 80, [&] { ops_->wkv4({r, k, v, decay, first, state, out}); });
  }

  void wkv5(int64_t tokens) {
    int64_t width = options_.width, size = options_.head_size;
    Device& d = *device_;
    Operand r(d, {tokens, width}), k(d, {tokens, width}), v(d, {tokens, width}), out(d, {tokens, width});
    Operand decay(d, {tokens, width}), vector(d, {width}), state(d, {width / size, size, size});
    rows("wkv5", tokens, (5 * tokens + 2 * size) * width, 7.0 * static_cast<double>(size), [&] {
      ops_->wkv5({r, k, v, decay, vector, {vector, vector}, {}, state, out});
    });
  }

  void wkv7(int64_t tokens) {
    int64_t width = options_.width, size = options_.head_size;
    Device& d = *device_;
    Operand r(d, {tokens, width}), decay(d, {tokens, width}), k(d, {tokens, width}), v(d, {tokens, width});
    Operand a(d, {tokens, width}), g(d, {tokens, width}), vector(d, {width}), out(d, {tokens, width});
    Operand state(d, {width / size, size, size});
    rows("wkv7", tokens, (7 * tokens + 2 * size) * width, 9.0 * static_cast<double>(size), [&] {
      ops_->wkv7({r, decay, k, v, a, g, {}, {}, vector, vector, vector, {vector, vector}, state, out});
    });
  }

  const Options& options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  double read_limit_ = 0;
  double peak_[2] = {};
};

void run(const Options& options) {
  if (options.list) {
    for (const cpu::Kernels* kernels : cpu::supported_kernels()) fmt::print("{}\n", kernels->name);
    return;
  }
  if (options.width % options.head_size != 0) {
    throw UsageError(
        fmt::format("--width {} is not a multiple of --head-size {}", options.width, options.head_size));
  }
  for (const std::string& shape : options.shapes) shape_of(shape);
  const bool only_coded = std::ranges::all_of(options.layouts, [](const auto& l) { return l == "coded"; });
  if (only_coded && std::ranges::find(options.types, "bf16") == options.types.end())
    throw UsageError("--layouts coded has weights in bf16 alone; name bf16 among --types, or another layout");
  Bench(options).run();
}

void define(CLI::App& app, Options& o) {
  app.add_option("operators", o.operators, "matmul, token_shift, wkv4, wkv5, wkv7; all when none is named")
      ->check(CLI::IsMember({"matmul", "token_shift", "wkv4", "wkv5", "wkv7"}));
  app.add_option("--shapes", o.shapes, "OUTPUTSxINPUTS of matrices (default 2048x2048,8192x2048,2048x8192)")
      ->delimiter(',');
  app.add_option("--types", o.types, "fp32,fp16,bf16,int8,int4: types of weights")
      ->delimiter(',')
      ->check(CLI::IsMember({"fp32", "fp16", "bf16", "int8", "int4"}));
  app.add_option("--layouts", o.layouts, "blocks,coded,rows: layouts of weights; coded: bf16 alone")
      ->delimiter(',')
      ->check(CLI::IsMember({"blocks", "coded", "rows"}));
  app.add_option("--tokens", o.tokens, "Tokens at once (default 1,256)")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  app.add_option("--width", o.width, "Channels of a token for the other operators (default 2048)")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--head-size", o.head_size, "Channels of a head (default 64)")->check(CLI::Range(1, 256));
  app.add_option("--zeros", o.zeros,
                 "Part of the inputs of matrices that is zero (default 0); the layout rows skips their "
                 "weights, which count as read all the same")
      ->check(finite_range(0, 1));
  app.add_option("--seconds", o.seconds, "Time for each line, of which the best run counts (default 0.3)")
      ->check(finite_range(0, 3600));
  app.add_option("--threads", o.threads, "Threads (default: one per physical core)")
      ->check(CLI::Range(1, 1024));
  app.add_flag("--list-isas", o.list,
               "Only print the instruction sets that this machine has, the best first");
}

}  // namespace
}  // namespace rwkv::apps

int main(int argc, char** argv) {
  rwkv::apps::Options options;
  return rwkv::apps::run_program(
      argc, argv,
      {"bench-ops",
       "Times single operators: the bytes of weights, state and activations that they move per second, and "
       "the\n"
       "multiplications and additions, beside the most that this machine does of each. RWKV_CPU chooses the "
       "instruction set.",
       "  bench-ops\n"
       "  bench-ops matmul --shapes 4096x4096 --types bf16,int8 --tokens 1,16,256 --threads 2\n"
       "  RWKV_CPU=avx2 bench-ops wkv5 wkv7 --width 4096 --head-size 64"},
      [&](CLI::App& app) { rwkv::apps::define(app, options); }, [&] { rwkv::apps::run(options); });
}
