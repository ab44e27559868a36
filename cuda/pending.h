// The products of one token that were not launched yet: what comes next may run in the same launch.
#pragma once

#include <array>
#include <initializer_list>
#include <span>

#include "cuda/kernels/kernels.h"

namespace rwkv::cuda {

class Pending {
 public:
  [[nodiscard]] static bool can_keep(std::span<const Product> products) {
    return products.size() <= max_products && products[0].x.rows() == 1;
  }
  void keep(std::span<const Product> products);
  [[nodiscard]] bool empty() const { return count_ == 0; }

  /// The products, which are pending no longer; good until the next ones are kept.
  std::span<const Product> take();

  /// Whether they are one product, whose output is `x`: an operator that normalizes x can be its tail.
  [[nodiscard]] bool end_in(const Tensor& x) const;
  /// Whether they give nothing but inputs of the recurrence that it can compute itself.
  [[nodiscard]] bool feed(const Wkv5& wkv) const;
  [[nodiscard]] bool feed(const Wkv7& wkv) const;

 private:
  [[nodiscard]] std::span<const Product> products() const { return std::span(products_).first(count_); }
  [[nodiscard]] bool feed(std::span<const Tensor> inputs, std::initializer_list<Tensor> others,
                          std::initializer_list<Tensor> written) const;

  std::array<Product, max_products> products_;
  size_t count_ = 0;
};

}  // namespace rwkv::cuda
