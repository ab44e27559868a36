#include "model/strategy.h"

#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <tuple>

#include "core/error.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

std::string refusal(const std::string& strategy) {
  return error_of([&] { Strategy::parse(strategy); });
}

std::string refused_plan(const std::string& strategy, int64_t layers) {
  return error_of([&] { std::ignore = Strategy::parse(strategy).plan(layers); });
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// As in strategies.txt.
std::string word_of(const LayerPlan& plan) {
  std::string device = plan.device == DeviceKind::cpu ? "cpu" : "cuda";
  if (plan.device_index != 0) device += ":" + std::to_string(plan.device_index);
  return device + "-" + precision_name(plan.type, plan.quantization) + (plan.streamed ? "+" : "");
}

std::string words_of(const std::string& strategy, int64_t layers) {
  std::string text;
  for (const LayerPlan& plan : Strategy::parse(strategy).plan(layers)) {
    text += (text.empty() ? "" : " ") + word_of(plan);
  }
  return text;
}

std::string normal_form(const std::string& strategy) { return to_string(Strategy::parse(strategy)); }

}  // namespace

TEST_CASE("strategy: layers go where the Python package puts them") {
  std::ifstream in(data_path("strategies.txt"));
  int lines = 0;
  for (std::string line; std::getline(in, line); lines++) {
    CAPTURE(line);
    std::istringstream fields(line);
    std::string layers, strategy, plan;
    std::getline(fields, layers, '|');
    std::getline(fields, strategy, '|');
    std::getline(fields, plan);
    // cuda is cuda:0.
    for (size_t at = 0; (at = plan.find("cuda:0-", at)) != std::string::npos;) plan.erase(at + 4, 2);
    CHECK(words_of(strategy, std::stoll(layers)) == plan);
  }
  CHECK(lines == 182);
}

TEST_CASE("strategy: every device and precision") {
  struct Name {
    std::string text;
    DType type;
    Quantization quantization;
  };
  for (const Name& name : {Name{"fp32", DType::f32, Quantization::none},
                           {"fp16", DType::f16, Quantization::none},
                           {"bf16", DType::bf16, Quantization::none},
                           {"fp32i8", DType::f32, Quantization::int8},
                           {"fp16i8", DType::f16, Quantization::int8},
                           {"bf16i8", DType::bf16, Quantization::int8},
                           {"fp32i4", DType::f32, Quantization::int4},
                           {"fp16i4", DType::f16, Quantization::int4},
                           {"bf16i4", DType::bf16, Quantization::int4}}) {
    CAPTURE(name.text);
    Segment cpu{DeviceKind::cpu, 0, name.type, name.quantization, std::nullopt, false};
    CHECK(Strategy::parse("cpu " + name.text).segments == std::vector{cpu});
    Segment cuda{DeviceKind::cuda, 63, name.type, name.quantization, 7, true};
    CHECK(Strategy::parse("cuda:63 " + name.text + " *7+").segments == std::vector{cuda});
    CHECK(precision_name(name.type, name.quantization) == name.text);
  }
}

TEST_CASE("strategy: blanks are free, and the normal form has single ones") {
  CHECK(normal_form("  cpu\tfp32i8   *2->cpu \n bf16  ") == "cpu fp32i8 *2 -> cpu bf16");
  CHECK(normal_form("cuda:0 fp16 *20+") == "cuda fp16 *20+");
  CHECK(normal_form("cuda:1 bf16 *007 ->cuda fp16i8") == "cuda:1 bf16 *7 -> cuda fp16i8");
  for (const std::string text :
       {"cpu fp32", "cuda:3 fp16i8 *0+ -> cpu bf16 *1", "cpu fp32 -> cpu bf16 -> cuda fp16"}) {
    CHECK(normal_form(text) == text);
    CHECK(Strategy::parse(normal_form(text)).segments == Strategy::parse(text).segments);
  }
}

TEST_CASE("strategy: what is wrong is said, with examples of what is right") {
  struct Wrong {
    std::string strategy, reason;
  };
  for (const Wrong& w : {Wrong{"", "it is empty"},
                         {" \t ", "it is empty"},
                         {"cuda", "a precision is missing after the device"},
                         {"cpu", "a precision is missing after the device"},
                         {"cuda fp64", "'fp64' is no precision"},
                         {"cpu fp16i3", "'fp16i3' is not supported"},
                         {"cpu bf16i88", "'bf16i88' is not supported"},
                         {"cpu FP16", "'FP16' is no precision"},
                         {"CPU fp16", "'CPU' is no device"},
                         {"mps fp16", "'mps' is no device"},
                         {"fp16", "'fp16' is no device"},
                         {"cuda:99 fp16", "'cuda:99' is no device: cpu, cuda or cuda:0 to cuda:63"},
                         {"cuda: fp16", "'cuda:' is no device"},
                         {"cuda:-1 fp16", "'cuda:-1' is no device"},
                         {"cuda:1x fp16", "'cuda:1x' is no device"},
                         {"cpu:0 fp16", "'cpu:0' is no device"},
                         {"cpu fp16 *", "'*' should be * and a number of layers"},
                         {"cpu fp16 *+", "'*+' should be * and a number of layers"},
                         {"cpu fp16 *-1", "'*-1' should be * and a number of layers"},
                         {"cpu fp16 *1.5", "'*1.5' should be * and a number of layers"},
                         {"cpu fp16 *99999999999999999999", "should be * and a number of layers"},
                         {"cpu fp16 2", "'2' should be *N or *N+"},
                         {"cpu fp16 *0", "a segment of 0 layers"},
                         {"cpu fp16 *2 *3", "'*3' is too much"},
                         {"cpu fp16 *2 +", "'+' is too much"},
                         {"cpu fp16*2", "'fp16*2' is not supported"},
                         {"cpu fp16 ->", "a part between '->' is empty"},
                         {"-> cpu fp16", "a part between '->' is empty"},
                         {"cpu fp16 -> -> cpu fp32", "a part between '->' is empty"},
                         {"cuda fp16 *8+ -> cuda fp16 *8+", "only one segment can take '+'"}}) {
    CAPTURE(w.strategy);
    std::string error = refusal(w.strategy);
    CHECK_MESSAGE(contains(error, w.reason), error);
    CHECK(contains(error, "for example 'cpu fp32'"));
  }
  CHECK(contains(refusal("cpu fp16\x1b[2J"), "'cpu fp16\\x1b[2J'"));
  CHECK(refusal(std::string(100000, 'x')).size() < 1000);
}

TEST_CASE("strategy: more layers than the model has are refused, and the error tells how many it has") {
  for (const std::string strategy :
       {"cpu fp32 *14", "cpu fp16 *999999999999", "cpu fp32 *9223372036854775807",
        "cpu fp32 *13 -> cpu bf16 *1", "cuda fp16 *7+ -> cpu fp32 *7",
        "cpu fp32 *9223372036854775807 -> cpu bf16 *9223372036854775807",
        "cpu fp32 *12 -> cpu bf16 *9223372036854775807"}) {
    CAPTURE(strategy);
    CHECK(contains(refused_plan(strategy, 13), "takes more layers than the model's 13 (12 and the head)"));
  }
  CHECK(refused_plan("cpu fp32 *12 -> cpu bf16 *1", 13).empty());
}

TEST_CASE("strategy: segments for which nothing is left take nothing") {
  CHECK(words_of("cpu fp32 *2 -> cpu bf16", 2) == "cpu-fp32 cpu-fp32");
  CHECK(words_of("cpu fp32 -> cpu bf16 -> cpu fp16", 2) == "cpu-bf16 cpu-fp16");
  CHECK(words_of("cpu fp32 -> cuda fp16 *1+", 3) == "cuda-fp16 cuda-fp16+ cuda-fp16+");
}

TEST_CASE("strategy: on the CPU nothing is streamed") {
  CHECK(words_of("cpu bf16 *2+", 4) == "cpu-bf16 cpu-bf16 cpu-bf16 cpu-bf16");
  CHECK(words_of("cpu bf16 *1+ -> cpu fp32 *1", 4) == "cpu-bf16 cpu-bf16 cpu-bf16 cpu-fp32");
}

}  // namespace rwkv::test

TEST_SUITE_END();
