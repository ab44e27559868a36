#include "test/model/reference_set.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "core/error.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

ReferenceSet open_set(const std::string& directory) {
  ReferenceSet set{directory, {}, {}, 1.3, 2, 1};
  for (const auto& entry : std::filesystem::directory_iterator(directory + "/models")) {
    if (entry.path().extension() == ".pth") set.names.push_back(entry.path().stem().string());
  }
  std::ranges::sort(set.names);
  std::ifstream in(directory + "/tokens.txt");
  for (int32_t token = 0; in >> token;) set.tokens.push_back(token);
  if (set.names.empty() || set.tokens.empty()) throw Error(directory + ": no reference models or no tokens");
  return set;
}

}  // namespace

const std::vector<ReferenceSet>& reference_sets() {
  static const std::vector<ReferenceSet> sets = [] {
    std::vector<ReferenceSet> found = {open_set(data_path("reference"))};
    // The package has an offset and a scale for each row and column. In matrices of 24 to 64 columns that is
    // finer than our scale for 32 weights; from 128 columns on it is not, and the bounds above hold.
    found[0].int8_bound = found[0].int8_bound_deep = 1.5;
    found[0].int8_bound_mean = 1.1;
    if (const char* other = std::getenv("RWKV_REFERENCE")) found.push_back(open_set(other));
    return found;
  }();
  return sets;
}

std::string ReferenceSet::model(const std::string& name) const {
  return directory + "/models/" + name + ".pth";
}

std::string ReferenceSet::state(const std::string& name) const {
  std::string path = directory + "/states/" + name + ".pth";
  return std::filesystem::exists(path) ? path : "";
}

std::string ReferenceSet::list(const std::string& name) const {
  std::string path = directory + "/lists/" + name + ".pth";
  return std::filesystem::exists(path) ? path : "";
}

std::vector<float> ReferenceSet::expected(const std::string& name, const std::string& what) const {
  std::string path = directory + "/expected/" + name + ".cpu-" + what + ".f32";
  std::string bytes = read_file(path);
  if (bytes.empty()) throw Error(path + ": missing or empty");
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

double relative_error(std::span<const float> actual, std::span<const float> expected) {
  if (actual.size() != expected.size() || expected.empty()) return NAN;
  auto count = static_cast<double>(expected.size());
  double mean = std::accumulate(expected.begin(), expected.end(), 0.0) / count;
  double difference = 0, variance = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    double d = static_cast<double>(actual[i]) - expected[i], e = expected[i] - mean;
    difference += d * d;
    variance += e * e;
  }
  return std::sqrt(difference / variance);
}

}  // namespace rwkv::test
