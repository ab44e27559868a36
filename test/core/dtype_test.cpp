#include "core/dtype.h"

#include <doctest/doctest.h>

#include "core/half.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {

TEST_CASE("dtype: sizes are those of the element types") {
  CHECK(size_of(DType::f32) == sizeof(float));
  CHECK(size_of(DType::f16) == sizeof(Half));
  CHECK(size_of(DType::bf16) == sizeof(BFloat16));
  CHECK(size_of(DType::i8) == sizeof(int8_t));
  CHECK(size_of(DType::u8) == sizeof(uint8_t));
  CHECK(size_of(DType::i32) == sizeof(int32_t));
  CHECK(bits_of(DType::i4) == 4);
  CHECK(bytes_of(DType::i4, 7) == 4);
  CHECK(bytes_of(DType::bf16, 7) == 14);
}

TEST_CASE("dtype: names are those of a strategy") {
  CHECK(name_of(DType::f32) == "fp32");
  CHECK(name_of(DType::f16) == "fp16");
  CHECK(name_of(DType::bf16) == "bf16");
  CHECK(name_of(DType::i8) == "int8");
  CHECK(name_of(DType::u8) == "uint8");
  CHECK(name_of(DType::i32) == "int32");
  CHECK(name_of(DType::i4) == "int4");
}

}  // namespace rwkv::test

TEST_SUITE_END();
