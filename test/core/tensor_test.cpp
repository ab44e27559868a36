#include "core/tensor.h"

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

TEST_SUITE_BEGIN("core");

namespace rwkv::test {

TEST_CASE("tensor: a default one is no tensor") {
  CHECK_FALSE(Tensor{});
  CHECK(Tensor{}.elements() == 1);
}

TEST_CASE("tensor: a matrix view knows its rows, columns and elements") {
  std::vector<float> data(12);
  std::iota(data.begin(), data.end(), 0.0f);
  Tensor matrix = matrix_view(data.data(), DType::f32, 3, 4);
  CHECK(matrix);
  CHECK(matrix.rows() == 3);
  CHECK(matrix.cols() == 4);
  CHECK(matrix.elements() == 12);
  CHECK(matrix.f32() == data.data());
  CHECK(matrix.row(2)[1] == 9.0f);
}

TEST_CASE("tensor: a vector view has one column") {
  std::vector<uint16_t> data(5);
  Tensor vector = vector_view(data.data(), DType::f16, 5);
  CHECK(vector.rows() == 5);
  CHECK(vector.cols() == 1);
  CHECK(vector.elements() == 5);
  CHECK(vector.slice_rows(3, 2).data == reinterpret_cast<std::byte*>(data.data() + 3));
}

TEST_CASE("tensor: slices are views of the same memory") {
  std::vector<float> data(20);
  std::iota(data.begin(), data.end(), 0.0f);
  Tensor matrix = matrix_view(data.data(), DType::f32, 4, 5);
  Tensor rows = matrix.slice_rows(1, 2);
  CHECK(rows.rows() == 2);
  CHECK(rows.cols() == 5);
  CHECK(rows.row(1)[0] == 10.0f);
  Tensor block = rows.slice_cols(2, 3);
  CHECK(block.rows() == 2);
  CHECK(block.cols() == 3);
  CHECK(block.row(0)[0] == 7.0f);
  CHECK(block.row(1)[2] == 14.0f);
  CHECK(block.slice_rows(1, 1).row(0)[0] == 12.0f);
  CHECK(matrix.slice_rows(4, 0).elements() == 0);
}

}  // namespace rwkv::test

TEST_SUITE_END();
