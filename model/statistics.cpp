#include "model/statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/layout.h"

namespace rwkv {
namespace {

// Calls read(part, values), with room for `room` values, for each of so many parts and adds up what it
// returns: the values of the part. Each thread's sums, then all threads' in their order.
template <class Read>
Statistics over_parts(int64_t parts, int64_t room, ThreadPool& pool, Read read) {
  auto threads = static_cast<size_t>(pool.threads());
  std::vector<Statistics> results(threads);
  std::vector<std::vector<float>> buffers(threads, std::vector<float>(static_cast<size_t>(room)));
  pool.run([&](int worker) {
    auto index = static_cast<size_t>(worker);
    Statistics mine;
    Range range = partition(parts, 1, worker, pool.threads());
    for (int64_t part = range.begin; part < range.end; part++) {
      auto count = static_cast<size_t>(read(part, buffers[index].data()));
      mine.add(std::span(buffers[index]).first(count));
    }
    results[index] = mine;
  });
  Statistics all;
  for (const Statistics& s : results) all.add(s);
  return all;
}

}  // namespace

double Statistics::rms() const { return std::sqrt(sum_of_squares / static_cast<double>(finite)); }

void Statistics::add(std::span<const float> values) {
  for (float value : values) {
    if (!std::isfinite(value)) {
      (std::isnan(value) ? nan : infinite)++;
      continue;
    }
    double x = value;
    finite++;
    min = std::min(min, x);
    max = std::max(max, x);
    sum += x;
    sum_of_squares += x * x;
  }
}

void Statistics::add(const Statistics& other) {
  finite += other.finite;
  nan += other.nan;
  infinite += other.infinite;
  min = std::min(min, other.min);
  max = std::max(max, other.max);
  sum += other.sum;
  sum_of_squares += other.sum_of_squares;
}

Statistics statistics_of(const Checkpoint& checkpoint, const SourceTensor& tensor, ThreadPool& pool) {
  checkpoint.check(tensor);
  constexpr int64_t piece = 1 << 16;
  auto elements = static_cast<int64_t>(tensor.elements());
  return over_parts((elements + piece - 1) / piece, piece, pool, [&](int64_t part, float* values) {
    int64_t first = part * piece, count = std::min(piece, elements - first);
    copy_elements_f32(tensor, static_cast<uint64_t>(first), static_cast<uint64_t>(count), values);
    return count;
  });
}

Statistics statistics_of(const ModelTensor& tensor, std::span<const std::byte> stored, ThreadPool& pool) {
  const StoredForm& form = tensor.form;
  const std::byte* data = stored.data();
  if (form.layout == Layout::plain) {
    int64_t width = tensor.spec.role == Role::vector ? tensor.spec.rows : tensor.spec.cols;
    return over_parts(form.units, width, pool, [&](int64_t unit, float* values) {
      to_f32(data + unit * form.unit_bytes, form.dtype, width, values);
      return width;
    });
  }
  MatrixLayout m = matrix_layout(tensor.spec, form);
  return over_parts(form.units, m.tile_cols() * block_outputs, pool, [&](int64_t unit, float* values) {
    unpack_unit(m, unit, data + unit * form.unit_bytes, values);
    return m.tile_rows(unit) * m.tile_cols();
  });
}

}  // namespace rwkv
