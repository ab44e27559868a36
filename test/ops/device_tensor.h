// Tensors in the memory of a device under test, and numbers to put there.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "ops/device.h"
#include "ops/layout.h"
#include "test/support.h"

namespace rwkv::test {

/// Deterministic numbers, the same with every library (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next();
  double uniform(double low, double high);
  int64_t index(int64_t count) { return static_cast<int64_t>(next() % static_cast<uint64_t>(count)); }
  /// Roughly normal: a sum of uniform numbers.
  float normal(double deviation = 1);
  std::vector<float> normals(int64_t count, double deviation = 1);
  std::vector<float> uniforms(int64_t count, double low, double high);

 private:
  uint64_t state_;
};

/// Where a tensor's rows lie in its memory, in elements.
struct Place {
  int64_t offset = 0;   ///< before the first row, so that it is not aligned
  int64_t gap = 0;      ///< between rows
  bool at_end = false;  ///< the last row ends with the allocation, where a sanitizer notices a read beyond it

  /// A different one for each number.
  static Place number(int64_t i);
};

/// A plain tensor. The memory around its rows holds signalling NaN: what reads it shows in the results, and
/// what writes it is found.
class DeviceTensor {
 public:
  DeviceTensor(Device& device, std::initializer_list<int64_t> sizes, std::span<const float> values,
               Place place = {}, DType dtype = DType::f32);

  operator const Tensor&() const { return view_; }  // NOLINT: that is what it is for
  [[nodiscard]] const Tensor& view() const { return view_; }

  /// The values of an fp32 tensor. `changed_around` tells whether the memory around them was written.
  [[nodiscard]] std::vector<float> values() const;
  [[nodiscard]] bool changed_around() const;
  /// Whether any byte differs from what was put there.
  [[nodiscard]] bool changed() const;

 private:
  [[nodiscard]] std::vector<std::byte> bytes() const;
  /// Calls function(offset of a row in bytes).
  template <class Function>
  void for_rows(Function function) const;

  Device* device_;
  Buffer buffer_;
  std::vector<std::byte> original_;
  Tensor view_;
  int64_t row_bytes_ = 0;
};

/// A matrix packed on the host, and what is stored of its values.
struct PackedMatrix {
  PackedMatrix(MatrixLayout layout, std::span<const float> values);

  MatrixLayout layout;
  std::vector<std::byte> bytes;
  std::vector<float> stored;  ///< [outputs, inputs], dense

  [[nodiscard]] std::span<const float> row(int64_t output) const {
    return std::span(stored).subspan(static_cast<size_t>(output * layout.inputs),
                                     static_cast<size_t>(layout.inputs));
  }

 private:
  void pack(int64_t u, const float* tile, std::byte* packed) const;
};

/// A packed matrix in the device's memory.
class DeviceMatrix {
 public:
  DeviceMatrix(Device& device, const PackedMatrix& matrix);
  operator const Tensor&() const { return view_; }  // NOLINT

 private:
  Buffer buffer_;
  Tensor view_;
};

}  // namespace rwkv::test
