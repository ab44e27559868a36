#include "test/ops/device_tensor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/checked.h"
#include "ops/coding.h"

namespace rwkv::test {

uint64_t Random::next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double Random::uniform(double low, double high) {
  return low + (high - low) * (static_cast<double>(next() >> 11) * 0x1p-53);
}

float Random::normal(double deviation) {
  double sum = 0;
  for (int i = 0; i < 4; i++) sum += uniform(-1, 1);
  return static_cast<float>(sum * deviation * std::sqrt(0.75));
}

std::vector<float> Random::normals(int64_t count, double deviation) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(deviation);
  return values;
}

std::vector<float> Random::uniforms(int64_t count, double low, double high) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(uniform(low, high));
  return values;
}

Place Place::number(int64_t i) {
  constexpr Place places[] = {{0, 0, false},  {1, 3, false}, {0, 0, true},
                              {5, 16, false}, {0, 7, true},  {15, 1, false}};
  return places[static_cast<size_t>(i) % std::size(places)];
}

DeviceTensor::DeviceTensor(Device& device, std::initializer_list<int64_t> sizes,
                           std::span<const float> values, Place place, DType dtype)
    : device_(&device) {
  constexpr int64_t guard = 16;  // elements
  static uint32_t tensors = 0;   // each has a NaN of its own, so that it is noticed in another
  auto element = static_cast<int64_t>(size_of(dtype));
  view_ = {nullptr, dtype, Layout::plain, static_cast<uint8_t>(sizes.size()), device.id(), {}, 1};
  std::copy(sizes.begin(), sizes.end(), view_.sizes.begin());
  int64_t rows = view_.sizes[0], width = rows == 0 ? 0 : view_.elements() / rows;
  if (view_.rank > 1) view_.stride = width + place.gap;
  row_bytes_ = width * element;

  int64_t used = rows == 0 ? 0 : ((rows - 1) * view_.stride + width) * element;
  int64_t begin = (guard + place.offset) * element, total = begin + used + guard * element;
  if (place.at_end) {
    total = round_up(guard * element + used, 64);
    begin = total - used;
  }
  original_.resize(static_cast<size_t>(total));
  uint32_t filler = 0x7fa00001u + (++tensors & 0xffffu);
  for (size_t i = 0; i < original_.size(); i++) {
    original_[i] = static_cast<std::byte>(
        filler >> (i % static_cast<size_t>(element) + 4 - static_cast<size_t>(element)) * 8);
  }
  buffer_ = device.allocate(original_.size());
  view_.data = buffer_.data() + begin;
  size_t row = 0;
  for_rows([&](int64_t offset) {
    from_f32(values.data() + row++ * static_cast<size_t>(width), dtype, width, original_.data() + offset);
  });
  device.copy_in(buffer_.data(), original_.data(), original_.size());
}

template <class Function>
void DeviceTensor::for_rows(Function function) const {
  int64_t stride = view_.stride * static_cast<int64_t>(size_of(view_.dtype));
  for (int64_t i = 0; i < view_.rows(); i++) function(view_.data - buffer_.data() + i * stride);
}

std::vector<std::byte> DeviceTensor::bytes() const {
  std::vector<std::byte> now(original_.size());
  device_->copy_out(now.data(), buffer_.data(), now.size());
  return now;
}

std::vector<float> DeviceTensor::values() const {
  std::vector<std::byte> now = bytes();
  std::vector<float> values(static_cast<size_t>(view_.elements()));
  auto* to = reinterpret_cast<std::byte*>(values.data());
  for_rows([&](int64_t offset) { to = std::copy_n(now.data() + offset, row_bytes_, to); });
  return values;
}

bool DeviceTensor::changed_around() const {
  std::vector<std::byte> now = bytes();
  for_rows([&](int64_t offset) { std::copy_n(original_.data() + offset, row_bytes_, now.data() + offset); });
  return now != original_;
}

bool DeviceTensor::changed() const { return bytes() != original_; }

PackedMatrix::PackedMatrix(MatrixLayout layout, std::span<const float> values)
    : layout(layout), bytes(static_cast<size_t>(layout.bytes())), stored(values.size()) {
  int64_t inputs = layout.inputs;
  for (int64_t u = 0; u < layout.units(); u++) {
    std::byte* packed = bytes.data() + u * layout.unit_bytes();
    if (layout.layout != Layout::input_rows) {
      pack(u, values.data() + u * block_outputs * inputs, packed);
      unpack_unit(layout, u, packed, stored.data() + u * block_outputs * inputs);
      continue;
    }
    std::vector<float> column(static_cast<size_t>(layout.outputs));
    for (size_t o = 0; o < column.size(); o++)
      column[o] = values[o * static_cast<size_t>(inputs) + static_cast<size_t>(u)];
    pack_unit(layout, u, column.data(), packed);
    unpack_unit(layout, u, packed, column.data());
    for (size_t o = 0; o < column.size(); o++)
      stored[o * static_cast<size_t>(inputs) + static_cast<size_t>(u)] = column[o];
  }
}

void PackedMatrix::pack(int64_t u, const float* tile, std::byte* packed) const {
  if (layout.layout != Layout::cpu_coded) return pack_unit(layout, u, tile, packed);
  const MatrixLayout blocks = uncoded(layout);
  std::vector<std::byte> block(static_cast<size_t>(blocks.unit_bytes()));
  pack_unit(blocks, u, tile, block.data());
  REQUIRE(encode_block(layout, block.data(), packed));
}

DeviceMatrix::DeviceMatrix(Device& device, const PackedMatrix& matrix)
    : buffer_(device.allocate(matrix.bytes.size())), view_(packed_view(matrix.layout, buffer_.data())) {
  view_.device = device.id();
  device.copy_in(buffer_.data(), matrix.bytes.data(), matrix.bytes.size());
}

}  // namespace rwkv::test
