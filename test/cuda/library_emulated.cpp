// Long chunks by a library: what is asked of it, whether it is taken, and that all works without it. The
// library of these tests is a slow kernel.
#include "cuda/library.h"

#include <cuda_fp16.h>
#include <doctest/doctest.h>

#include <vector>

#include "core/half.h"
#include "cuda/cublas_emulated.h"
#include "cuda/cuda.h"
#include "cuda/launch.h"
#include "cuda/memory.h"
#include "test/cuda/device_under_test.h"
#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

using cuda::Workspace;

constexpr int64_t tokens = 300, inputs = 100, outputs = 70;
constexpr size_t memory = size_t{1} << 30;

__global__ void gemm_kernel(bool half, int m, int n, int k, const unsigned short* a, int lda,
                            const unsigned short* b, int ldb, float* c, int ldc, float factor) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= m * n) return;
  const auto value = [half](unsigned short bits) {
    return half ? to_float(Half{bits}) : to_float(BFloat16{bits});
  };
  float sum = 0;
  for (int l = 0; l < k; l++) sum += value(a[int64_t{i % m} * lda + l]) * value(b[int64_t{i / m} * ldb + l]);
  c[int64_t{i / m} * ldc + i % m] = sum * factor;
}

/// How the library behaves, and what happened to it.
struct {
  int create = 0, set_workspace = 0, gemm = 0;  // what these calls return
  float factor = 1;                             // of its results
  int handles = 0, products = 0, tokens = 0;
  cudaStream_t stream = nullptr;
} fake;

int create(void** handle) {
  if (fake.create == 0) fake.handles++;
  *handle = &fake;
  return fake.create;
}
int destroy(void* handle) {
  CHECK(handle == &fake);
  fake.handles--;
  return 0;
}
int set_stream(void*, cudaStream_t stream) {
  fake.stream = stream;
  return 0;
}
int set_workspace(void*, void* workspace, size_t bytes) {
  CHECK(workspace != nullptr);
  CHECK(bytes == 32 << 20);
  return fake.set_workspace;
}
int gemm(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
         const void* a, int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c,
         int c_type, int ldc, int compute_type, int algorithm) {
  CHECK(handle == &fake);
  CHECK(transpose_a == 1);
  CHECK(transpose_b == 0);
  CHECK(*static_cast<const float*>(alpha) == 1);
  CHECK(*static_cast<const float*>(beta) == 0);
  CHECK((a_type == 2 || a_type == 14));
  CHECK(b_type == a_type);
  CHECK(c_type == 0);
  CHECK(compute_type == 68);
  CHECK(algorithm == -1);
  CHECK(lda % 8 == 0);
  CHECK(ldb % 8 == 0);
  if (fake.gemm != 0) return fake.gemm;
  fake.products++;
  fake.tokens += n;
  cuda::launch(gemm_kernel, static_cast<unsigned>((m * n + 127) / 128), 128, 0, fake.stream, a_type == 2, m,
               n, k, static_cast<const unsigned short*>(a), lda, static_cast<const unsigned short*>(b), ldb,
               static_cast<float*>(c), ldc, fake.factor);
  return 0;
}

constexpr cuda::CublasFunctions functions = {create, destroy, set_stream, set_workspace, gemm};

/// The library is there, and as it should be.
class GivenCublas {
 public:
  GivenCublas() {
    fake = {};
    cuda::give_cublas(&functions);
  }
  ~GivenCublas() {
    cuda::give_cublas(nullptr);
    CHECK(fake.handles == 0);
  }
  GivenCublas(const GivenCublas&) = delete;
  GivenCublas& operator=(const GivenCublas&) = delete;
};

/// A queue with a workspace for these limits.
class QueueBench {
 public:
  explicit QueueBench(const Ops::Limits& limits) : operands_(device_->allocate(cuda::operand_bytes(limits))) {
    workspace_.operands = operands_.data();
    workspace_.operand_bytes = operands_.size();
    workspace_.two_part_weights = 0;  // small matrices are no work for a library
  }
  [[nodiscard]] const cuda::Queue& queue() const { return queue_; }
  [[nodiscard]] Workspace& workspace() { return workspace_; }

  std::vector<float> run(const ProductCase& c) {
    const OnDevice on_device(*device_, c, {0, c.tokens});
    const Product product = on_device.product();
    cuda::matmul({&product, 1}, workspace_, queue_.stream());
    queue_.synchronize();
    return on_device.result();
  }

 private:
  std::unique_ptr<Device> device_ = cuda::open(0);
  cuda::Queue queue_{0};
  Buffer operands_;
  Workspace workspace_;
};

/// The same where the library is at hand, with memory for the sums of 128 tokens.
class LibraryBench : public QueueBench {
 public:
  explicit LibraryBench(const Ops::Limits& limits) : QueueBench(limits) { use(true); }
  void use(bool library) {
    workspace().library = library ? &cublas_ : nullptr;
    workspace().library_sums = reinterpret_cast<float*>(sums_.data());
    workspace().library_sum_bytes = sums_.size();
  }

 private:
  Buffer memory_ = cuda::allocate(0, 32 << 20), sums_ = cuda::allocate(0, outputs * 128 * sizeof(float));
  cuda::Cublas cublas_{functions, queue().stream(), memory_.data(), memory_.size()};
};

constexpr Ops::Limits limits = {.tokens = tokens, .product_inputs = 128, .product_outputs = outputs};

}  // namespace

TEST_SUITE_BEGIN("cuda");

TEST_CASE("library: takes long chunks of 16-bit weights, in slices; epilogues are ours") {
  on_device(4, [] {
    const GivenCublas given;
    LibraryBench bench(limits);
    int64_t seed = 1;
    for (const Epilogue epilogue : epilogues) {
      const DType dtype = seed % 2 == 0 ? DType::f16 : DType::bf16;
      ProductCase c({Layout::cuda_blocks, dtype, outputs, inputs}, epilogue, 260, seed++);
      c.x[5] = 1e9f;  // scaled for fp16
      c.x[static_cast<size_t>(100 * inputs)] = INFINITY;
      bench.use(false);
      const std::vector<float> ours = bench.run(c);
      bench.use(true);
      fake.products = fake.tokens = 0;
      const std::vector<float> theirs = bench.run(c);
      CHECK(fake.products == 3);
      CHECK(fake.tokens == 260);
      for (size_t i = 0; i < ours.size(); i++) {
        CAPTURE(i);
        CAPTURE(static_cast<int>(epilogue));
        if (std::isfinite(ours[i])) {
          REQUIRE(std::abs(theirs[i] - ours[i]) <= 1e-5 * ((i < outputs ? 1e9 : 50) + std::abs(ours[i])));
        } else {
          REQUIRE(same_bits(std::span(theirs).subspan(i, 1), std::span(ours).subspan(i, 1)));
        }
      }
    }
  });
}

TEST_CASE("library: is not asked for anything else") {
  on_device(1, [] {
    const GivenCublas given;
    LibraryBench bench(limits);
    const auto asked = [&](MatrixLayout layout, int64_t chunk) {
      fake.products = 0;
      bench.run({layout, Epilogue::none, chunk, 1});
      return fake.products > 0;
    };
    CHECK(asked({Layout::cuda_blocks, DType::f16, 20, 64}, 256));
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::f16, 20, 64}, 255));
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::i8, 20, 64}, 256));
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::i4, 20, 64}, 256));
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::f32, 20, 64}, 256));
    CHECK_FALSE(asked({Layout::input_rows, DType::f16, 20, 64}, 256));
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::f16, 0, 64}, 256));
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::f16, 20, 0}, 256));
    // Without memory for the sums of 64 tokens; with just that.
    bench.workspace().library_sum_bytes = 20 * 64 * 4 - 1;
    CHECK_FALSE(asked({Layout::cuda_blocks, DType::f16, 20, 64}, 256));
    bench.workspace().library_sum_bytes++;
    CHECK(asked({Layout::cuda_blocks, DType::f16, 20, 64}, 256));
    // One that refuses costs nothing but the question.
    const ProductCase c({Layout::cuda_blocks, DType::f16, 20, 64}, Epilogue::add, 256, 1);
    fake.gemm = 15;
    const std::vector<float> refused = bench.run(c);
    bench.use(false);
    CHECK(same_bits(refused, bench.run(c)));
  });
}

TEST_CASE("library: is taken when it is right and faster") {
  on_devices({.memory = memory}, 2, [] {
    double share = 1.6;  // this one launches three kernels where matmul launches two
    const auto taken = [&share](const Ops::Limits& some) {
      QueueBench bench(some);
      cuda::FasterLibrary faster(share);
      faster.look(bench.queue(), some, bench.workspace());
      const bool found = bench.workspace().library != nullptr;
      CHECK(found == (fake.handles == 1));
      CHECK(found == (bench.workspace().library_sums != nullptr));
      CHECK(found == (bench.workspace().library_sum_bytes > 0));
      if (found)
        CHECK(bench.run({{Layout::cuda_blocks, DType::f16, 20, 64}, Epilogue::none, 256, 1}).size() == 5120);
      return found;
    };
    const GivenCublas given;
    CHECK(taken(limits));
    CHECK_FALSE(taken({.tokens = 255, .product_inputs = 128, .product_outputs = outputs}));
    fake.factor = 1.01f;  // wrong
    CHECK_FALSE(taken(limits));
    fake.factor = NAN;
    CHECK_FALSE(taken(limits));
    fake = {};
    fake.gemm = 13;  // refuses: then it is not faster
    share = 0.9;
    CHECK_FALSE(taken(limits));
    share = 1.6;
    fake = {};
    fake.create = 1;
    CHECK_FALSE(taken(limits));
    fake = {};
    fake.set_workspace = 1;
    CHECK_FALSE(taken(limits));
    fake = {};
    cuda::give_cublas(nullptr);
    CHECK_FALSE(taken(limits));
    cuda::give_cublas(&functions);
    CHECK(taken(limits));
    share = 1.4;
    CHECK_FALSE(taken(limits));
  });
}

TEST_CASE("library: takes only memory to spare") {
  on_devices({.memory = 500 << 20}, 1, [] {
    const GivenCublas given;
    QueueBench bench(limits);
    cuda::FasterLibrary faster;
    faster.look(bench.queue(), limits, bench.workspace());
    CHECK(bench.workspace().library == nullptr);
    CHECK(fake.handles == 0);
  });
}

}  // namespace rwkv::test
