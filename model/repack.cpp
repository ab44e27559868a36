#include "model/repack.h"

#include <cstring>
#include <vector>

#include "core/buffer.h"
#include "core/checked.h"
#include "core/thread_pool.h"

namespace rwkv {

void repack(const TensorSpec& spec, const StoredForm& from, const std::byte* in, const StoredForm& to,
            std::byte* out, ThreadPool& pool) {
  if (from == to) {
    std::memcpy(out, in, static_cast<size_t>(to.bytes()));
    return;
  }
  bool packed = from.layout != Layout::plain;
  MatrixLayout source = matrix_layout(spec, from), target = matrix_layout(spec, to);
  auto tile = static_cast<size_t>(packed ? source.tile_cols() * block_outputs : spec.cols);
  auto tiles = Buffer::host(tile * static_cast<size_t>(pool.threads()) * sizeof(float));
  // Both layouts of a matrix cut it into the same units: blocks stay blocks and rows stay rows.
  pool.run([&](int worker) {
    auto* values = reinterpret_cast<float*>(tiles.data()) + tile * static_cast<size_t>(worker);
    Range range = partition(from.units, 1, worker, pool.threads());
    for (int64_t u = range.begin; u < range.end; u++) {
      const std::byte* unit = in + u * from.unit_bytes;
      if (packed) {
        repack_unit(source, u, unit, target, out + u * to.unit_bytes, values);
      } else {
        to_f32(unit, from.dtype, spec.cols, values);
        from_f32(values, to.dtype, spec.cols, out + u * to.unit_bytes);
      }
    }
  });
}

}  // namespace rwkv
