// What the values of a tensor are like, read piece by piece from the mapped file.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "core/thread_pool.h"
#include "model/checkpoint/pth.h"
#include "model/model_file.h"

namespace rwkv {

/// NaN and infinite values are counted and left out of everything else.
struct Statistics {
  uint64_t finite = 0, nan = 0, infinite = 0;
  double min = std::numeric_limits<double>::infinity(), max = -min;  ///< as they are when finite is 0
  double sum = 0, sum_of_squares = 0;

  [[nodiscard]] double mean() const { return sum / static_cast<double>(finite); }
  [[nodiscard]] double rms() const;

  void add(std::span<const float> values);
  void add(const Statistics& other);
};

/// Of a checkpoint's tensor. Throws Error when its storage is damaged.
Statistics statistics_of(const Checkpoint& checkpoint, const SourceTensor& tensor, ThreadPool& pool);
/// Of a stored tensor, without its padding: for integers, of the weights that they stand for.
Statistics statistics_of(const ModelTensor& tensor, std::span<const std::byte> stored, ThreadPool& pool);

}  // namespace rwkv
