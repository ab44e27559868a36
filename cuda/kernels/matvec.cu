// Products of one token with matrices in cuda_blocks: one launch for all that a call has.
//
// The weights are read once and used once, so memory is the limit. For fp16 and a width of 2048 receptance,
// key and value together are 25 MB: 7.5 us at the 3.3 TB/s of an H100, 25 us at the 1 TB/s of an RTX 4090;
// the output alone is 8.4 MB, 2.5 us and 8 us, and the head 268 MB, 80 us and 270 us. To keep 3.3 TB/s busy
// for a latency of 700 ns, 2.3 MB must be on their way, 18 KB for each of 132 multiprocessors (a 4090 wants 5
// KB). A warp has eight loads of 16 bytes for each lane in flight, 4 KB, and two blocks of eight warps fit
// into the registers of a multiprocessor: 64 KB. Where the outputs are too few to fill the multiprocessors, a
// warp takes fewer rows and more of each at once, until there are two thousand warps or one row for each. A
// launch that reads less than their 8 MB is bound by latency, about 2 us. Instructions: 2 for each 16-bit
// weight, 3 for an int8, 5 for an int4 (see widen.h), address arithmetic included 290, 670 and 1500 for 4 KB
// of a warp: 0.07, 0.16 and 0.37 a byte. A multiprocessor issues 4 a cycle and gets 15 bytes, 3 on a 4090, so
// 16-bit weights and int8 take a quarter to 60% of the time that memory does; int4 takes 28% of it on a 4090,
// but on an H100 1.4 times as long, which is still 0.75 of what int8 takes. The vector comes from the level 1
// cache, where what neighbouring lanes read of it lies 16 (fp32), 32 or 64 (int8; int4, see row_dot.h) bytes
// apart and so takes one, two or four turns: with int8 and one row for a warp that would leave 7 bytes of
// weights a cycle, with four rows 27; with int4 half of that, about what memory gives. So int8 and int4 count
// twice when rows are dealt out.
#include "cuda/kernels/matvec.h"

#include <algorithm>
#include <type_traits>

#include "cuda/kernels/epilogue.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/row_dot.h"
#include "cuda/kernels/tail.h"
#include "cuda/launch.h"

namespace rwkv::cuda {
namespace {

constexpr int warps = norm_threads / 32;
constexpr int enough_warps = 2048;  // of a launch, to keep the memory busy

struct VectorProduct {
  WeightRows weight;
  const float* x;
  EpilogueArguments epilogue;
  int first_block, end_block;
};

struct Arguments {
  VectorProduct products[max_products];
  unsigned* counter;
  TailArguments tail;
  int count, with_tail;
};
static_assert(std::has_unique_object_representations_v<Arguments>, "nothing undefined goes to the device");

template <int rows>
__global__ void __launch_bounds__(norm_threads, 2) matvec_kernel(const Arguments a) {
  const int block = static_cast<int>(blockIdx.x);
  if (a.with_tail != 0 && block == 0) prefetch_tail(a.tail);
  int index = 0;
  while (index + 1 < a.count && block >= a.products[index].end_block) index++;
  const VectorProduct& p = a.products[index];
  const int of_block = warps * rows * (32 / p.weight.lanes), begin = (block - p.first_block) * of_block;
  row_dots<rows>(p.weight, p.x, begin, min(begin + of_block, p.weight.outputs),
                 [&p](int row, float y) { store_result(p.epilogue, y, 0, row); });
  if (a.with_tail != 0 && last_to_arrive(a.counter, gridDim.x)) run_tail(a.tail);
}

template <int rows>
void launch_products(Arguments& a, cudaStream_t stream) {
  int blocks = 0;
  for (int i = 0; i < a.count; i++) {
    VectorProduct& p = a.products[i];
    const int of_block = warps * rows * (32 / p.weight.lanes);
    p.first_block = blocks;
    blocks += (p.weight.outputs + of_block - 1) / of_block;
    p.end_block = blocks;
  }
  if (a.with_tail != 0) blocks = std::max(blocks, 1);
  launch(matvec_kernel<rows>, static_cast<unsigned>(blocks), norm_threads, 0, stream, a);
}

void add_product(Arguments& a, const Product& p) {
  VectorProduct& to = a.products[a.count++];
  to.weight = weight_rows(p.weight);
  to.x = p.x.f32();
  to.epilogue = epilogue_arguments(p);
}

void launch_products(Arguments& a, cudaStream_t stream) {
  int64_t most_warps = 0;  // with one row for each
  for (int i = 0; i < a.count; i++) {
    const WeightRows& w = a.products[i].weight;
    most_warps += int64_t{w.outputs} * w.lanes / 32 * (is_quantized(w.type) ? 2 : 1);
  }
  if (most_warps >= 4 * enough_warps) return launch_products<4>(a, stream);
  if (most_warps >= 2 * enough_warps) return launch_products<2>(a, stream);
  launch_products<1>(a, stream);
}

}  // namespace

void matvec(std::span<const Product> products, const Tail& tail, const Workspace& workspace,
            cudaStream_t stream) {
  Arguments a{};
  a.counter = workspace.counters;
  size_t of_rows = 0;
  for (const Product& p : products) {
    if (p.weight.layout == Layout::input_rows) {
      of_rows++;
      continue;
    }
    if (a.count == max_products) {
      launch_products(a, stream);
      a.count = 0;
    }
    add_product(a, p);
  }
  // The tail belongs to the last launch.
  if (of_rows == 0) {
    a.tail = tail_arguments(tail);
    a.with_tail = a.tail.any() ? 1 : 0;
  }
  if (a.count > 0 || a.with_tail != 0) launch_products(a, stream);
  for (const Product& p : products) {
    if (p.weight.layout == Layout::input_rows)
      matvec_rows(p, --of_rows == 0 ? tail : Tail{}, workspace, stream);
  }
}

}  // namespace rwkv::cuda
