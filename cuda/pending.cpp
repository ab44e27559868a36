#include "cuda/pending.h"

#include <algorithm>

namespace rwkv::cuda {
namespace {

// Whether two dense tensors share memory; one that is missing shares none.
bool overlap(const Tensor& a, const Tensor& b) {
  auto end = [](const Tensor& t) { return t.data + t.elements() * static_cast<int64_t>(size_of(t.dtype)); };
  return a.data != nullptr && b.data != nullptr && a.data < end(b) && b.data < end(a);
}

}  // namespace

void Pending::keep(std::span<const Product> products) {
  std::ranges::copy(products, products_.begin());
  count_ = products.size();
}

std::span<const Product> Pending::take() {
  const std::span<const Product> taken = products();
  count_ = 0;
  return taken;
}

bool Pending::end_in(const Tensor& x) const {
  const Product& p = products_[0];
  return count_ == 1 && x.data == p.out.data && x.rows() == 1 && x.cols() == p.out.cols();
}

// Each head computes its channels of the inputs while others already write what they own. So no product may
// read what is written, each output must be one of the inputs, as a whole, and nothing else that is read.
bool Pending::feed(std::span<const Tensor> inputs, std::initializer_list<Tensor> others,
                   std::initializer_list<Tensor> written) const {
  if (count_ == 0 || count_ > inputs.size()) return false;
  const int64_t width = written.begin()->cols();
  auto good = [&](const Product& p) {
    auto is_out = [&p](const Tensor& t) { return t.data == p.out.data; };
    auto is_read = [&p](const Tensor& t) { return overlap(t, p.x) || overlap(t, p.bias); };
    const bool is_function = p.epilogue != Epilogue::add && p.epilogue != Epilogue::gated_add &&
                             p.epilogue != Epilogue::biased_mix;  // those read what is at the output or a, b
    return p.weight.layout == Layout::cuda_blocks && !is_quantized(p.weight.dtype) && is_function &&
           p.out.cols() == width && std::ranges::count_if(inputs, is_out) == 1 &&
           std::ranges::none_of(others, [&p](const Tensor& t) { return overlap(t, p.out); }) &&
           std::ranges::none_of(written, is_read);
  };
  return std::ranges::all_of(products(), good);
}

bool Pending::feed(const Wkv5& w) const {
  if (w.r.rows() != 1) return false;
  return feed(std::span(&w.decay, 1), {w.r, w.k, w.v, w.first, w.norm.weight, w.norm.bias, w.gate},
              {w.out, w.state});
}

bool Pending::feed(const Wkv7& w) const {
  if (w.r.rows() != 1) return false;
  const std::array inputs = {w.decay, w.a, w.g, w.v_gate};
  return feed(inputs, {w.r, w.k, w.v, w.v_first, w.k_k, w.k_a, w.r_k, w.norm.weight, w.norm.bias},
              {w.out, w.state});
}

}  // namespace rwkv::cuda
