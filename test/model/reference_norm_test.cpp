#include "model/checkpoint/reference_norm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

#include "core/half.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

float widened(const std::string& type, uint16_t bits) {
  return type == "bf16" ? to_float(BFloat16{bits}) : to_float(Half{bits});
}

uint16_t rounded(const std::string& type, float value) {
  return type == "bf16" ? to_bfloat16(value).bits : to_half(value).bits;
}

}  // namespace

// Rows that double precision would round the other way, with what PyTorch makes of them.
TEST_CASE("reference norm: rounded to 16 bits it is PyTorch's, bit by bit") {
  std::ifstream in(data_path("reference/normalizations.txt"));
  int lines = 0;
  for (std::string line; std::getline(in, line); lines++) {
    std::istringstream words(line);
    std::string type, word;
    words >> type;
    std::vector<uint16_t> bits;
    while (words >> word) bits.push_back(static_cast<uint16_t>(std::stoul(word, nullptr, 16)));
    size_t width = bits.size() / 4, wrong = 0;
    CAPTURE(type);
    CAPTURE(width);
    std::vector<float> numbers;
    for (uint16_t b : bits) numbers.push_back(widened(type, b));
    std::span all(numbers);
    std::span row = all.subspan(2 * width, width);
    reference_layer_norm(row, all.first(width), all.subspan(width, width));
    for (size_t i = 0; i < width; i++) wrong += rounded(type, row[i]) == bits[3 * width + i] ? 0 : 1;
    CHECK(wrong == 0);
  }
  CHECK(lines == 6);
}

TEST_CASE("reference norm: of any width it is the formula") {
  std::mt19937 random(1);
  std::normal_distribution<float> draw(0.5f, 2);
  for (size_t width = 5; width < 600; width = width * 5 / 4 + 1) {
    CAPTURE(width);
    std::vector<float> row, weight, bias;
    double mean = 0, variance = 0;
    for (size_t i = 0; i < width; i++) {
      row.push_back(draw(random));
      weight.push_back(draw(random));
      bias.push_back(draw(random));
      mean += row.back() / static_cast<double>(width);
    }
    for (float x : row) variance += (x - mean) * (x - mean) / static_cast<double>(width);
    std::vector<float> result = row;
    reference_layer_norm(result, weight, bias);
    for (size_t i = 0; i < width; i++) {
      double normalized = (row[i] - mean) / std::sqrt(variance + 1e-5);
      CHECK(std::abs(normalized * weight[i] + bias[i] - result[i]) <= 1e-5);
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
