#include "model/checkpoint/tensor_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/buffer.h"
#include "core/error.h"
#include "core/half.h"
#include "model/checkpoint/reference_norm.h"
#include "ops/coding.h"

namespace rwkv {
namespace {

constexpr int64_t batch_bytes = 4 << 20;  // of packed weights, between two calls of the sink

// Weights that are NaN or infinite, or become infinite in this type.
int64_t count_not_finite(std::span<const float> values, DType stored = DType::f32) {
  constexpr float half_overflow = 65520;  // rounds to infinity
  float limit = stored == DType::f16 ? half_overflow : std::numeric_limits<float>::infinity();
  return std::count_if(values.begin(), values.end(), [limit](float x) { return !(std::abs(x) < limit); });
}

float transformed(float x, Transform transform) {
  switch (transform) {
    case Transform::one_minus:
      return 1.0f - x;
    case Transform::negative_exp:
      return -std::exp(x);
    case Transform::exp_negative_exp:
      return std::exp(-std::exp(x));
    default:
      return x;
  }
}

std::vector<float> read_vector(const ModelCheckpoint& model, const TensorSpec& spec,
                               const std::string& name) {
  auto [tensor, exponential] = model.source_of(spec, name);
  std::vector<float> source(tensor->elements());
  model.checkpoint().read_f32(*tensor, 0, source.size(), source.data());
  std::vector<float> values(static_cast<size_t>(spec.rows));
  auto head = static_cast<size_t>(std::max<int64_t>(model.config().head_size, 1));
  for (size_t i = 0; i < values.size(); i++) {
    size_t from = i * source.size() / values.size();  // a head's single value is repeated
    if (spec.transform == Transform::transposed_heads) {
      size_t block = i / (head * head), key = i / head % head, value = i % head;
      from = (block * head + value) * head + key;
    }
    values[i] = exponential ? std::exp(source[from]) : transformed(source[from], spec.transform);
  }
  return values;
}

int64_t write_vector(const ModelCheckpoint& model, const ModelTensor& t, const ByteSink& sink) {
  std::vector<float> values = read_vector(model, t.spec, t.name);
  int64_t bad = count_not_finite(values);
  values.resize(static_cast<size_t>(t.form.unit_bytes) / 4, 0.0f);
  sink(std::as_bytes(std::span(values)));
  return bad;
}

/// Runs make(unit, tile, packed) over all units on all threads, batch by batch.
template <class Make>
void write_units(const StoredForm& form, int64_t tile_floats, ThreadPool& pool, const ByteSink& sink,
                 Make make) {
  int64_t batch = std::clamp<int64_t>(batch_bytes / std::max<int64_t>(form.unit_bytes, 1), 1,
                                      std::max<int64_t>(form.units, 1));
  Buffer packed = Buffer::host(static_cast<size_t>(batch * form.unit_bytes));
  Buffer tiles = Buffer::host(static_cast<size_t>(tile_floats * pool.threads()) * sizeof(float));
  for (int64_t first = 0; first < form.units; first += batch) {
    int64_t count = std::min(batch, form.units - first);
    std::memset(packed.data(), 0, packed.size());
    pool.run([&](int worker) {
      auto* tile = reinterpret_cast<float*>(tiles.data()) + tile_floats * worker;
      Range range = partition(count, 1, worker, pool.threads());
      for (int64_t i = range.begin; i < range.end; i++) {
        make(first + i, tile, packed.data() + i * form.unit_bytes);
      }
    });
    sink(packed.bytes().first(static_cast<size_t>(count * form.unit_bytes)));
  }
}

/// The source as a matrix of which a unit of the layout is consecutive elements.
SourceTensor unit_major_view(const SourceTensor& source, const TensorSpec& spec) {
  SourceTensor view = source;
  if (spec.part >= 0) {
    view.data += spec.part * view.strides[0] * static_cast<int64_t>(size_of(view.dtype));
    view.sizes.erase(view.sizes.begin());
    view.strides.erase(view.strides.begin());
  }
  bool by_inputs = spec.role == Role::rows;
  if (spec.transposed != by_inputs) {
    std::swap(view.sizes[0], view.sizes[1]);
    std::swap(view.strides[0], view.strides[1]);
  }
  return view;
}

/// A matrix of the checkpoint, unit by unit of a layout.
class MatrixSource {
 public:
  MatrixSource(const ModelCheckpoint& model, const ModelTensor& t, const MatrixLayout& layout) : m_(layout) {
    const SourceTensor& source = *model.source_of(t.spec, t.name).tensor;
    model.checkpoint().check(source);
    view_ = unit_major_view(source, t.spec);
  }

  /// Its values.
  std::span<const float> read(int64_t u, float* tile) const {
    const int64_t rows = m_.tile_rows(u), cols = m_.tile_cols();
    const int64_t first = m_.layout == Layout::input_rows ? u * cols : u * block_outputs * cols;
    copy_elements_f32(view_, static_cast<uint64_t>(first), static_cast<uint64_t>(rows * cols), tile);
    return {tile, static_cast<size_t>(rows * cols)};
  }
  [[nodiscard]] int64_t tile_floats() const { return m_.tile_cols() * block_outputs; }

 private:
  MatrixLayout m_;
  SourceTensor view_;
};

int64_t write_matrix(const ModelCheckpoint& model, const ModelTensor& t, ThreadPool& pool,
                     const ByteSink& sink) {
  const MatrixLayout m = matrix_layout(t.spec, t.form);
  const MatrixSource source(model, t, m);
  std::atomic<int64_t> bad = 0;
  write_units(t.form, source.tile_floats(), pool, sink, [&](int64_t u, float* tile, std::byte* packed) {
    bad += count_not_finite(source.read(u, tile), t.form.dtype);
    pack_unit(m, u, tile, packed);
  });
  return bad;
}

// A tile's memory has room for the unit in cpu_blocks behind it: `block`.
struct Unit {
  std::span<const float> values;
  const std::byte* block;
};
Unit read_unit(const MatrixSource& source, const MatrixLayout& blocks, int64_t u, float* tile) {
  const std::span<const float> values = source.read(u, tile);
  auto* block = reinterpret_cast<std::byte*>(tile + source.tile_floats());
  pack_unit(blocks, u, tile, block);
  return {values, block};
}
int64_t floats_with_block(const MatrixSource& source, const MatrixLayout& blocks) {
  return source.tile_floats() + blocks.unit_bytes() / static_cast<int64_t>(sizeof(float));
}

int64_t write_coded(const ModelCheckpoint& model, const ModelTensor& t, ThreadPool& pool,
                    const ByteSink& sink) {
  const MatrixLayout m = matrix_layout(t.spec, t.form), blocks = uncoded(m);
  const MatrixSource source(model, t, blocks);
  std::atomic<int64_t> bad = 0, failed = 0;
  write_units(t.form, floats_with_block(source, blocks), pool, sink,
              [&](int64_t u, float* tile, std::byte* packed) {
                const Unit unit = read_unit(source, blocks, u, tile);
                bad += count_not_finite(unit.values, t.form.dtype);
                if (!encode_block(m, unit.block, packed)) failed++;
              });
  if (failed > 0) {
    throw Error(fmt::format("{}: tensor '{}' changed while it was converted; convert it again",
                            model.checkpoint().file().path(), t.name));
  }
  return bad;
}

void round_to(DType dtype, std::span<float> values) {
  for (float& x : values) {
    if (dtype == DType::f16) x = to_float(to_half(x));
    if (dtype == DType::bf16) x = to_float(to_bfloat16(x));
  }
}

// The embedding goes through ln0 once and for all. The reference does that in the checkpoint's type for
// versions 4 to 6, and in the strategy's for version 7: so the first are rounded to the checkpoint's type.
int64_t write_table(const ModelCheckpoint& model, const ModelTensor& t, ThreadPool& pool,
                    const ByteSink& sink) {
  int64_t width = t.spec.cols;
  auto weight = read_vector(model, vector_spec("blocks.0.ln0.weight", width), "blocks.0.ln0.weight");
  auto bias = read_vector(model, vector_spec("blocks.0.ln0.bias", width), "blocks.0.ln0.bias");
  const SourceTensor& source = *model.source_of(t.spec, t.name).tensor;
  model.checkpoint().check(source);
  bool rounded = model.config().version != Version::v7;
  std::atomic<int64_t> bad = count_not_finite(weight) + count_not_finite(bias);
  write_units(t.form, width, pool, sink, [&](int64_t u, float* row, std::byte* packed) {
    auto count = static_cast<uint64_t>(width);
    copy_elements_f32(source, static_cast<uint64_t>(u) * count, count, row);
    bad += count_not_finite({row, count});
    reference_layer_norm({row, count}, weight, bias);
    if (rounded) round_to(source.dtype, {row, count});
    from_f32(row, t.form.dtype, width, packed);
  });
  return bad;
}

}  // namespace

bool can_be_coded(const ModelCheckpoint& model, const ModelTensor& t, ThreadPool& pool) {
  if (coded_form(t.spec, t.form) == t.form) return false;
  const MatrixLayout m = matrix_layout(t.spec, t.form);
  const MatrixSource source(model, t, m);
  const int64_t floats = floats_with_block(source, m);
  Buffer tiles = Buffer::host(static_cast<size_t>(floats * pool.threads()) * sizeof(float));
  std::atomic<bool> codable = true;
  pool.run([&](int worker) {
    auto* tile = reinterpret_cast<float*>(tiles.data()) + floats * worker;
    const Range range = partition(m.units(), 1, worker, pool.threads());
    for (int64_t u = range.begin; u < range.end && codable; u++) {
      if (!is_codable(m, read_unit(source, m, u, tile).block)) codable = false;
    }
  });
  return codable;
}

int64_t write_tensor(const ModelCheckpoint& model, const ModelTensor& tensor, ThreadPool& pool,
                     const ByteSink& sink) {
  if (tensor.spec.role == Role::vector) return write_vector(model, tensor, sink);
  if (tensor.spec.role == Role::table) return write_table(model, tensor, pool, sink);
  if (tensor.form.layout == Layout::cpu_coded) return write_coded(model, tensor, pool, sink);
  return write_matrix(model, tensor, pool, sink);
}

}  // namespace rwkv
