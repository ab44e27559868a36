#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <sstream>

#include "model/text/score.h"
#include "test/apps/chat.h"
#include "test/apps/process.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

const std::string text = "User: what is a strategy?\n\nAssistant: A strategy says for each layer";

Result perplexity(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program_path("apps/perplexity"));
  return run_program(arguments);
}

// From the logits that another program writes.
TextScore expected_score(const std::string& directory) {
  const std::string ids = run_program({program_path("tools/rwkv-tokenize"), demo_file()}, text).output;
  const std::string path = directory + "/logits";
  CHECK(run_program({program_path("tools/rwkv-logits"), demo_file(), "--tokens", "-", "--output", path},
                    "0 " + ids)
            .status == 0);
  const std::string bytes = read_file(path);
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), bytes.size());
  TextScore score;
  std::istringstream numbers(ids);
  for (int32_t id = 0; numbers >> id;)
    score.add(std::span(logits).subspan(static_cast<size_t>(score.tokens) * 1500, 1500), id);
  return score;
}

}  // namespace

TEST_CASE("perplexity: bits are those of the model's logits, in chunks of any length") {
  TemporaryDirectory directory;
  write_file(directory / "text", text);
  const TextScore score = expected_score(directory / "");
  const double bits = score.nats / std::log(2.0);
  for (const char* chunk : {"256", "3"}) {
    Result r = perplexity({demo_file(), directory / "text", "--chunk", chunk});
    CHECK(r.status == 0);
    std::istringstream lines(r.output);
    std::string line, strategy, precision;
    double per_byte = 0, per_token = 0, perplexity = 0;
    for (int i = 0; i < 4; i++) std::getline(lines, line);
    std::istringstream(line) >> strategy >> precision >> per_byte >> per_token >> perplexity;
    CHECK(per_byte == doctest::Approx(bits / static_cast<double>(text.size())).epsilon(1e-3));
    CHECK(per_token == doctest::Approx(bits / static_cast<double>(score.tokens)).epsilon(1e-3));
    CHECK(perplexity ==
          doctest::Approx(std::exp(score.nats / static_cast<double>(score.tokens))).epsilon(1e-3));
  }
}

TEST_CASE("perplexity: strategies are compared with the first one") {
  TemporaryDirectory directory;
  write_file(directory / "text", text);
  Result r = perplexity({demo_file(), directory / "text", "--strategy", "cpu fp32", "--strategy",
                         "cpu fp32i4", "--strategy", "cpu fp32"});
  CHECK(r.status == 0);
  std::istringstream lines(r.output);
  std::vector<std::string> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(line);
  REQUIRE(rows.size() == 6);
  CHECK(rows[2].find("KL divergence") != std::string::npos);
  CHECK(rows[3].starts_with("cpu fp32 "));
  CHECK(rows[3].find('%') == std::string::npos);
  CHECK(rows[4].starts_with("cpu fp32i4 "));
  CHECK(rows[4].find("0.000000") == std::string::npos);
  CHECK(rows[5].find("0.000000   0.00%") != std::string::npos);
}

TEST_CASE("perplexity: the last word of passages") {
  TemporaryDirectory directory;
  write_file(directory / "passages",
             "{\"text\": \"a strategy says for each layer\"}\n\n{\"text\": \"one two\"}\n");
  Result r = perplexity({demo_file(), "--lambada", directory / "passages"});
  CHECK(r.status == 0);
  CHECK(r.output.find("2 passages") != std::string::npos);
  CHECK(r.output.find("accuracy") != std::string::npos);
  for (const char* bad : {"{\"text\": \"word\"}", "{}", "[1]", "{\"text\": 3}", "x"}) {
    write_file(directory / "passages", bad);
    CHECK(perplexity({demo_file(), "--lambada", directory / "passages"}).status == 1);
  }
}

TEST_CASE("perplexity: what is missing is said") {
  TemporaryDirectory directory;
  write_file(directory / "empty", "");
  CHECK(perplexity({demo_file()}).status == 2);
  CHECK(perplexity({demo_file(), directory / "empty"}).status == 1);
  CHECK(perplexity({demo_file(), directory / "none"}).status == 1);
  CHECK(perplexity({demo_file(), directory / "empty", "--strategy", "cpu fp9"}).status == 1);
}

}  // namespace rwkv::test

TEST_SUITE_END();
