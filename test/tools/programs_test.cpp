// The contract of the programs that are run once: exit status, one line for an error, nothing lost.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string_view>

#include "core/json.h"
#include "test/apps/chat.h"
#include "test/apps/process.h"
#include "test/model/checkpoint/build.h"
#include "test/support.h"

TEST_SUITE_BEGIN("apps");

namespace rwkv::test {
namespace {

std::string tool(const std::string& name) { return program_path("tools/" + name); }

}  // namespace

TEST_CASE("rwkv-convert converts the demo model, shows what it made, and verifies it") {
  TemporaryDirectory directory;
  std::string out = directory / "a model, 100%.rwkv";
  Result r = run_program({tool("rwkv-convert"), demo_path("guide-2.5m"), out, "--vocab",
                          demo_path("guide-2.5m.vocab.txt"), "--strategy", "cpu fp32i8 *2 -> cpu bf16"});
  CHECK(r.status == 0);
  CHECK(r.errors == "");
  for (const char* part :
       {"RWKV-7, 6 layers", "layers 0-1 fp32i8, layers 2-5 and head bf16", "1500 tokens", "MB/s"}) {
    CHECK_MESSAGE(contains(r.output, part), part);
  }
  CHECK(run_program({tool("rwkv-convert"), "--verify", out}).status == 0);
  std::string bytes = read_file(out);
  bytes[bytes.size() - 100000] = static_cast<char>(bytes[bytes.size() - 100000] ^ 1);
  write_file(out, bytes);
  Result damaged = run_program({tool("rwkv-convert"), "--verify", out});
  CHECK(is_error(damaged, 1));
  CHECK(contains(damaged.errors, "is damaged"));
}

TEST_CASE("a wrong command line is status 2, and help and version are not errors") {
  for (const char* name : {"tools/rwkv-convert", "tools/rwkv-logits", "tools/rwkv-tokenize", "apps/bench"}) {
    std::string program = program_path(name);
    CHECK(is_error(run_program({program, "--no-such-flag"}), 2));
    CHECK(run_program({program, "--help"}).status == 0);
    CHECK(contains(run_program({program, "--help"}).output, "Examples:"));
    CHECK(run_program({program, "--version"}).output.ends_with("0.1.0\n"));
  }
  CHECK(is_error(run_program({tool("rwkv-convert")}), 2));
  CHECK(is_error(run_program({tool("rwkv-convert"), "a.pth", "b", "--strategy", ""}), 2));
  CHECK(is_error(run_program({tool("rwkv-convert"), "a.pth", "b", "--vocab", "x", "--vocab", "y"}), 2));
  CHECK(is_error(run_program({tool("rwkv-convert"), "--verify", "x", "--no-crc"}), 2));
  CHECK(
      is_error(run_program({tool("rwkv-logits"), "m", "--tokens", "-", "--output", "o", "--chunk", "0"}), 2));
  CHECK(is_error(run_program({program_path("apps/bench"), "m", "--threads", "0"}), 2));
  CHECK(is_error(run_program({tool("bench-ops"), "matmul", "--types", "int8", "--layouts", "coded"}), 2));
}

TEST_CASE("bench-ops times matrices of which nothing is read") {
  // The matrices that take turns were without number.
  CHECK(run_program({tool("bench-ops"), "matmul", "--shapes", "1x1", "--types", "int8", "--layouts", "rows",
                     "--tokens", "1", "--zeros", "1", "--seconds", "0"})
            .status == 0);
}

TEST_CASE("an error is one line, whatever the names are") {
  CHECK(is_error(run_program({tool("rwkv-logits"), "no\nsuch\nmodel", "--tokens", "-", "--output", "o"}), 1));
  CHECK(is_error(run_program({tool("rwkv-convert"), "/dev/null", "out"}), 1));
  CHECK(is_error(run_program({tool("rwkv-tokenize"), "/"}), 1));
}

TEST_CASE("an output never replaces an input") {
  TemporaryDirectory directory;
  std::string model = make_demo_file(directory / "m.rwkv"), before = read_file(model);
  std::filesystem::create_symlink(model, directory / "link");
  std::filesystem::create_hard_link(model, directory / "hard");
  for (const char* name : {"m.rwkv", "link", "hard"}) {
    Result r =
        run_program({tool("rwkv-logits"), model, "--tokens", "-", "--output", directory / name}, "1 2 3");
    CHECK(is_error(r, 1));
    CHECK(contains(r.errors, "is in use as the input"));
  }
  CHECK(read_file(model) == before);
  std::string vocabulary = directory / "vocabulary.txt", text = read_file(demo_path("guide-2.5m.vocab.txt"));
  write_file(vocabulary, text);
  Result r =
      run_program({tool("rwkv-convert"), demo_path("guide-2.5m.pth"), vocabulary, "--vocab", vocabulary});
  CHECK(is_error(r, 1));
  CHECK(read_file(vocabulary) == text);
}

TEST_CASE("an empty vocabulary file is an error, not no vocabulary") {
  TemporaryDirectory directory;
  write_file(directory / "empty", "");
  Result r = run_program(
      {tool("rwkv-convert"), demo_path("guide-2.5m.pth"), directory / "out", "--vocab", directory / "empty"});
  CHECK(is_error(r, 1));
  CHECK(!std::filesystem::exists(directory / "out"));
}

TEST_CASE("a vocabulary is no model file, whatever its ninth byte is") {
  TemporaryDirectory directory;
  const std::string text = directory / "text", json = directory / "json";
  std::string lines = "1 'abcde{' 6\n";
  for (int byte = 0; byte < 256; byte++) lines += fmt::format("{} b'\\x{:02x}' 1\n", byte + 2, byte);
  write_file(text, lines);
  const Result r = run_program({tool("rwkv-tokenize"), text}, "abcde{");
  CHECK(r.output == "1\n");
  CHECK(r.status == 0);
  write_file(json, "{\"abc\": {}}");
  CHECK(contains(run_program({tool("rwkv-tokenize"), json}).errors, "expected a tokenizer file"));
}

TEST_CASE("progress that cannot be shown disturbs nothing") {
  TemporaryDirectory directory;
  Result r = run_program({tool("rwkv-convert"), data_path("checkpoint/views.pth"), directory / "o"}, "",
                         "2>/dev/full");
  CHECK(r.status == 1);
  r = run_program({tool("rwkv-convert"), demo_path("guide-2.5m.pth"), directory / "o"}, "", "2>/dev/full");
  CHECK(r.status == 0);
  CHECK(std::filesystem::exists(directory / "o"));
}

TEST_CASE("a full or closed standard output is an error") {
  for (const char* redirection : {">/dev/full", ">&-"}) {
    CHECK(is_error(run_program({tool("rwkv-tokenize"), demo_file()}, "hello", redirection), 1));
  }
}

TEST_CASE("rwkv-tokenize: bytes to ids and back, invalid UTF-8 and NUL included") {
  constexpr std::string_view bytes("User: hi\r\n\n\xff\xfe\0 what?", 20);
  std::string text(bytes);
  Result ids = run_program({tool("rwkv-tokenize"), demo_file()}, text);
  CHECK(ids.status == 0);
  CHECK(run_program({tool("rwkv-tokenize"), demo_file(), "--decode"}, ids.output).output == text);
  CHECK(run_program({tool("rwkv-tokenize"), demo_path("guide-2.5m.vocab.txt")}, text).output == ids.output);
  CHECK(run_program({tool("rwkv-tokenize"), demo_file()}, "").output == "\n");
  Result unknown = run_program({tool("rwkv-tokenize"), demo_file(), "--decode"}, "5 6 99999");
  CHECK(is_error(unknown, 1));
  CHECK(unknown.output == "");
  CHECK(is_error(run_program({tool("rwkv-tokenize"), demo_file(), "--decode"}, "5 6x"), 1));
  CHECK(is_error(run_program({tool("rwkv-tokenize"), demo_file()}, "", "</"), 1));
}

TEST_CASE("rwkv-logits: all tokens, the last, chunks and standard input give the same bits") {
  TemporaryDirectory directory;
  std::string tokens = "1 2 3, 4\n5 6 7", all = directory / "all", chunked = directory / "chunked",
              last = directory / "last";
  write_file(directory / "tokens", tokens);
  CHECK(run_program({tool("rwkv-logits"), demo_file(), "--tokens", directory / "tokens", "--output", all})
            .status == 0);
  CHECK(run_program({tool("rwkv-logits"), demo_file(), "--tokens", "-", "--output", chunked, "--chunk", "2"},
                    tokens)
            .status == 0);
  CHECK(run_program({tool("rwkv-logits"), demo_file(), "--tokens", "-", "--output", last, "--last"}, tokens)
            .status == 0);
  std::string logits = read_file(all);
  CHECK(logits.size() == size_t{7 * 1500 * 4});
  CHECK(read_file(chunked) == logits);
  CHECK(read_file(last) == logits.substr(6 * 1500 * 4));
  CHECK(
      is_error(run_program({tool("rwkv-logits"), demo_file(), "--tokens", "-", "--output", all}, "1500"), 1));
  CHECK(is_error(run_program({tool("rwkv-logits"), demo_file(), "--tokens", "-", "--output", all}, ""), 1));
  CHECK(read_file(all) == logits);
}

TEST_CASE("bench --json has what programs look for") {
  Result r = run_program({program_path("apps/bench"), demo_file(), "--json", "--prompt-tokens", "20",
                          "--decode-tokens", "3", "--repeats", "1"});
  CHECK(r.status == 0);
  Json json = parse_json(r.output, "bench");
  for (const char* key : {"prefill_tokens_per_second", "decode_tokens_per_second", "weight_bytes_per_token",
                          "read_bytes_per_second_limit", "load_seconds", "peak_resident_bytes",
                          "huge_page_bytes", "strategy", "threads"}) {
    CHECK_MESSAGE(json.find(key) != nullptr, key);
  }
}

TEST_CASE("bench --profile shows where the time goes") {
  std::vector<std::string> command = {program_path("apps/bench"),
                                      demo_file(),
                                      "--profile",
                                      "--prompt-tokens",
                                      "20",
                                      "--decode-tokens",
                                      "3",
                                      "--repeats",
                                      "1"};
  Result r = run_program(command);
  CHECK(r.status == 0);
  for (const char* part : {"\nprefill ", "\ndecode ", "wkv7", "matmul 1500x160", "everything else"})
    CHECK_MESSAGE(r.output.find(part) != std::string::npos, part);
  command.emplace_back("--json");
  Json json = parse_json(run_program(command).output, "bench");
  for (const char* key : {"prefill_profile", "decode_profile"}) {
    const Json* profile = json.find(key);
    REQUIRE(profile != nullptr);
    REQUIRE(profile->find("operators") != nullptr);
    double sum = 0;
    for (const Json& one : *profile->find("operators")->array())
      sum += std::get<double>(one.find("seconds_per_token")->value);
    CHECK(sum > 0);
    CHECK(sum <= std::get<double>(profile->find("seconds_per_token")->value));
  }
}

TEST_CASE("a model that is cut while it is in use ends in one line") {
  TemporaryDirectory directory;
  std::string model = make_demo_file(directory / "m.rwkv");
  Process process(Process::Kind::pipes,
                  {tool("rwkv-logits"), model, "--tokens", "-", "--output", directory / "o"});
  // The tokens come after the file was mapped and cut.
  process.write("1 ");
  process.wait_until_read();
  std::filesystem::resize_file(model, 4096);
  process.close_input();
  CHECK(process.wait() == 1);
  CHECK(!std::filesystem::exists(directory / "o"));
}

TEST_CASE("a signal that was ignored when a program started stays ignored") {
  TemporaryDirectory directory;
  std::string script = "trap '' HUP; exec \"$0\" \"$@\"";
  Process process(Process::Kind::pipes, {"/bin/sh", "-c", script, tool("rwkv-logits"), demo_file(),
                                         "--tokens", "-", "--output", directory / "o"});
  process.write("1 ");
  process.wait_until_read();
  process.signal(SIGHUP);
  process.close_input();
  CHECK(process.wait() == 0);
}

}  // namespace rwkv::test

TEST_SUITE_END();
