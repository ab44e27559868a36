// What a model may ask of a device.
//
// An operator is a public function that checks its arguments, worded once for all devices, and a private
// virtual function that a device implements. Shapes are written [rows, columns]; T is the number of tokens of
// a chunk, D the width of the residual stream, A the width of time mixing (H heads of N channels), F the
// hidden width of channel mixing. Unless said otherwise tensors are fp32 in the plain layout with dense rows,
// an output overlaps no input, and sums run in an order that does not depend on the number of threads, nor on
// T, but that one token alone may have another order than one among others: from two tokens on the length of
// a chunk changes nothing. Infinities and NaN go through as the formulas say; numbers below the smallest
// normal one of fp32 (1.2e-38) may be taken as zero.
//
// Formulas follow the reference implementation (pip package rwkv 0.8.32, model.py) and the papers on RWKV-4
// (arXiv 2305.13048), Eagle and Finch (5 and 6, arXiv 2404.05892) and Goose (7, arXiv 2503.14456).
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/tensor.h"
#include "ops/times.h"

namespace rwkv {

/// Epsilons of the reference implementation.
constexpr float layer_norm_epsilon = 1e-5f;
constexpr float group_norm_epsilon = 64e-5f;

/// Channels of a head (N) that the recurrences can have.
constexpr int64_t max_head_size = 256;

/// normalize(x) = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias, over the last dimension.
struct Norm {
  Tensor weight;  ///< [D]
  Tensor bias;    ///< [D]
};

/// One of the inputs that token shift makes: mixed[t] = n[t] + (n[t - 1] - n[t]) * mix.
struct Mix {
  Tensor mix;    ///< [D]
  Tensor mixed;  ///< out: [T, D]
};

struct TokenShift {
  Tensor x;           ///< [T, D], T >= 1
  Norm norm;          ///< gives n[t] = normalize(x[t])
  Tensor state;       ///< in: n[-1], of the token before this chunk; out: n[T - 1]; [D]
  Tensor normalized;  ///< out: n[-1] ... n[T - 1]; [T + 1, D]
  std::span<const Mix> mixes;
};

/// What happens to y = x W^T, [T, outputs], before it is stored. `bias` is [outputs]; `a` and `b` are
/// [T, outputs].
enum class Epilogue : uint8_t {
  none,            ///< out = y
  add,             ///< out = out + y
  gated_add,       ///< out = out + a * y
  tanh,            ///< out = tanh(y)
  sigmoid,         ///< out = 1 / (1 + exp(-y))
  silu,            ///< out = y / (1 + exp(-y))
  relu_squared,    ///< out = max(y, 0)^2
  biased_sigmoid,  ///< out = sigmoid(bias + y)
  biased_mix,      ///< out = a + (b - a) * (bias + y); RWKV-6's data-dependent token shift
  decay6,          ///< out = exp(-exp(bias + y))
  decay7,          ///< out = exp(-0.606531 * sigmoid(bias + y)); 0.606531 = exp(-1/2)
};

/// One matrix product with what follows it.
struct Product {
  Tensor x;       ///< [T, inputs]; rows may be `stride` apart
  Tensor weight;  ///< [outputs, inputs], in Ops::blocks() or input_rows (ops/layout.h): fp32, fp16, bf16,
                  ///< int8 or int4
  Tensor out;     ///< [T, outputs]; rows may be `stride` apart
  Epilogue epilogue = Epilogue::none;
  Tensor bias{}, a{}, b{};  ///< as the epilogue needs
};

/// RWKV-4. For each channel, with e1, e2 = exp(pp - q), exp(first + k - q), q = max(pp, first + k):
///   out = r * (e1 * aa + e2 * v) / (e1 * bb + e2)
/// then with e1, e2 = exp(decay + pp - q), exp(k - q), q = max(decay + pp, k):
///   aa = e1 * aa + e2 * v,  bb = e1 * bb + e2,  pp = q
struct Wkv4 {
  Tensor r, k, v;       ///< [T, A]; r after its sigmoid
  Tensor decay, first;  ///< [A]; decay = -exp(time_decay)
  Tensor state;         ///< in, out: rows aa, bb, pp; [3, A]
  Tensor out;           ///< [T, A]; may be r
};

/// RWKV-5 and 6. For each head, with state S[key][value]:
///   y[j] = sum_i r[i] * (first[i] * k[i] * v[j] + S[i][j]);  S[i][j] = k[i] * v[j] + decay[i] * S[i][j]
///   out = normalize(y, over the head's N channels, group_norm_epsilon) * gate
struct Wkv5 {
  Tensor r, k, v;  ///< [T, A]
  Tensor decay;    ///< [A] for version 5, [T, A] for version 6; in (0, 1)
  Tensor first;    ///< [A]
  Norm norm;       ///< [A]
  Tensor gate;     ///< [T, A]; none: no gate
  Tensor state;    ///< in, out: [H, N, N]
  Tensor out;      ///< [T, A]; may be r
};

/// RWKV-7. For each head, with state S[key][value]:
///   kk = k * k_k / max(|k * k_k|, 1e-12);  k' = k * (1 + (a - 1) * k_a);  v' = v + (v_first - v) * v_gate
///   sa[j] = -sum_i kk[i] * S[i][j];  S[i][j] = decay[i] * S[i][j] + kk[i] * a[i] * sa[j] + k'[i] * v'[j]
///   y[j] = sum_i r[i] * S[i][j]
///   out = (normalize(y, over the head's N channels, group_norm_epsilon) + (sum_i r[i] k'[i] r_k[i]) * v') *
///   g
struct Wkv7 {
  Tensor r, decay, k, v, a, g;  ///< [T, A]
  Tensor v_first, v_gate;       ///< [T, A]; both none in the first layer, where v' = v
  Tensor k_k, k_a, r_k;         ///< [A]
  Norm norm;                    ///< [A]
  Tensor state;                 ///< in, out: [H, N, N]
  Tensor out;                   ///< [T, A]; may be r
};

/// Matrices with at most so many weights cost little, and low-rank pairs in front of exponential functions
/// are among them: their products with several tokens keep more bits of the inputs (Ops::matmul).
constexpr int64_t small_matrix = 1 << 18;

class Ops {
 public:
  virtual ~Ops() = default;

  /// The layout that matrices have on this device.
  [[nodiscard]] virtual Layout blocks() const = 0;

  /// Upper bounds for all later calls; operators then allocate nothing.
  struct Limits {
    int64_t tokens = 0;           ///< T
    int64_t product_inputs = 0;   ///< sum over the products of one matmul call of round_up(inputs, 64)
    int64_t product_outputs = 0;  ///< the most outputs of a product
    int64_t transfer_bytes = 0;   ///< the most bytes of one embed, upload or download
  };
  void reserve(const Limits& limits) { do_reserve(limits); }

  /// Operators of a device may be queued: then they run later, in order, and only download() and
  /// synchronize() wait for them. Tensors stay until then; host memory may be changed as soon as a call
  /// returns. `to` and `from` are dense.
  void upload(const Tensor& to, const float* host);
  void download(float* host, const Tensor& from);
  /// Waits for everything. Errors of queued work are thrown here at the latest.
  virtual void synchronize() = 0;
  /// A dense tensor of another device of the same kind, after everything in the queue of `source`; what is
  /// queued there afterwards may change it.
  void receive(const Tensor& to, Ops& source, const Tensor& from);

  /// Calls `work`, which only queues operators, and no embed, upload, download or receive, the same ones with
  /// the same arguments for the same key; a device may record them and afterwards run its record instead (a
  /// CUDA graph). A key is what the arguments depend on, such as the addresses of a state.
  void repeat(std::span<const void* const> key, const std::function<void()>& work) {
    times_ == nullptr ? do_repeat(key, work) : work();
  }

  /// From now on each operator is waited for, alone, and its time added to `times`; work is no longer
  /// recorded and repeated. nullptr ends it.
  void measure(OperatorTimes* times) { times_ = times; }

  /// out[t] = table[tokens[t]]. out [T, D]; table [vocabulary, D], plain, fp32, fp16 or bf16, in host memory
  /// on every device. Throws Error for a token outside the table.
  void embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens);

  /// out[t] = normalize(x[t]) with layer_norm_epsilon; [T, D]; out may be x.
  void layer_norm(const Tensor& out, const Tensor& x, const Norm& norm);

  void token_shift(const TokenShift& shift);

  /// All products, in any order; none may read what another one writes. T is the same for all. Sums are fp32.
  /// Weights must be finite: those of an input that is zero may not be read. One token alone may have other
  /// bits than among others.
  ///
  /// On the CPU inputs stay fp32 and weights are widened, except:
  ///   int8 and int4 in blocks   one token's inputs are rounded to 16-bit integers, with a scale for 32
  ///   bf16 that is not exact    inputs are rounded to bf16 (Tensor::exact)
  /// and for several tokens, where the processor has instructions for bf16:
  ///   int8 and int4             weights and inputs are rounded to bf16, unless it is a small_matrix
  /// and where it has none, but those for integers (VNNI), of bf16 that is not exact, int8 and int4:
  ///   in blocks                 inputs are rounded to 14-bit integers and weights to 13 bits, each with a
  ///                             scale for 64; one token's inputs for bf16 stay fp32
  ///   in input_rows             inputs are rounded to 16-bit integers and weights to 15 bits, each with a
  ///                             scale for 256 (inputs: of fewer bits, so that sums of magnitudes have 17)
  ///
  /// On a CUDA device inputs stay fp32 for one token; for several they are rounded to bf16 for bf16 weights,
  /// and for fp16 and integer weights, after scaling each token's inputs by a power of two to at most 2^15,
  /// to fp16 (of a small_matrix to the sum of two such numbers), and integer weights to fp16. For one token,
  /// outputs that are decay, a, g or v_gate of the recurrence which is the next operator may exist only there
  /// and never reach their memory.
  void matmul(std::span<const Product> products);

  void wkv4(const Wkv4& wkv);
  void wkv5(const Wkv5& wkv);
  void wkv7(const Wkv7& wkv);

 private:
  /// work(), and its time if that is measured.
  template <class Name, class Work>
  void run(Name name, Work work);

  virtual void do_reserve(const Limits& limits) = 0;
  virtual void do_repeat(std::span<const void* const> key, const std::function<void()>& work);
  virtual void do_upload(std::byte* to, const std::byte* host, size_t bytes) = 0;
  virtual void do_download(std::byte* host, const std::byte* from, size_t bytes) = 0;
  virtual void do_receive(std::byte* to, Ops& source, const std::byte* from, size_t bytes) = 0;
  virtual void do_embed(const Tensor& out, const Tensor& table, std::span<const int32_t> tokens) = 0;
  virtual void do_layer_norm(const Tensor& out, const Tensor& x, const Norm& norm) = 0;
  virtual void do_token_shift(const TokenShift& shift) = 0;
  virtual void do_matmul(std::span<const Product> products) = 0;
  virtual void do_wkv4(const Wkv4& wkv) = 0;
  virtual void do_wkv5(const Wkv5& wkv) = 0;
  virtual void do_wkv7(const Wkv7& wkv) = 0;

  OperatorTimes* times_ = nullptr;
};

}  // namespace rwkv
