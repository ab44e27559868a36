// Files that are no checkpoints are named for what they are.
#include "model/checkpoint/foreign.h"

#include <doctest/doctest.h>

#include "core/tensor_file.h"
#include "model/model_file.h"
#include "test/model/checkpoint/build.h"
#include "test/support.h"

namespace rwkv::test {
namespace {

TEST_SUITE_BEGIN("checkpoint");

using namespace std::string_literals;

std::string tar_with(const std::string& member) {
  std::string tar(1024, '\0');
  tar.replace(0, member.size(), member);
  tar.replace(257, 5, "ustar");
  return tar;
}

TEST_CASE("a file of another kind is refused and named") {
  std::vector<TensorEntry> entries = {{"emb.weight", DType::f32, {1}, 0, 0}};
  std::string safetensors = make_tensor_file_header({{"format", "x"}}, entries) + std::string(64, '\0');
  std::string converted = make_tensor_file_header({{model_format_key, model_format}}, entries);
  std::string no_metadata = le(uint64_t{2}) + "{}";
  const std::pair<std::string, const char*> cases[] = {
      {"", "the file is empty"},
      {"PK\x03", "not a PyTorch checkpoint"},
      {"<!DOCTYPE html>\n<html>", "a web page"},
      {"\n  <HTML lang=en><head>", "a web page"},
      {"\xef\xbb\xbf<html>", "a web page"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
       "a Git-LFS pointer, not the file itself"},
      {"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"},
      {safetensors, "a safetensors file, not a PyTorch checkpoint: get the original .pth file"},
      {converted, "is converted already: use it as it is"},
      {no_metadata, "a safetensors file"},
      {"GGUF\x03\0\0\0"s, "a GGUF model"},
      {"lmgg\x01\0\0\0"s, "a GGML model"},
      {"fmgg\x65\0\0\0"s, "a GGML model"},
      {"tjgg\x03\0\0\0"s, "a GGML model"},
      {tar_with("sys_info"), "a tar checkpoint of PyTorch before 0.1.10"},
      {tar_with("./storages"), "a tar checkpoint of PyTorch"},
      {tar_with("model.pth"), "a tar archive (its first member is 'model.pth')"},
      {"\x1f\x8b\x08\0\0"s, "a gzip file"},
      {"\x28\xb5\x2f\xfd\0"s, "a Zstandard file"},
      {"\xfd"
       "7zXZ\0\0"s,
       "an xz file"},
      {"BZh91AY", "a bzip2 file"},
      {"7z\xbc\xaf\x27\x1c\0"s, "a 7-Zip archive"},
      {"\x93NUMPY\x01", "a NumPy array"},
      {"\x89HDF\r\n", "an HDF5 file"},
      {"\x7f"
       "ELF\x02",
       "a program"},
      {"Entry not found", "a text file, not a PyTorch checkpoint (it begins 'Entry not found')"},
      {"{\"error\": \"Repository not found\"}", "a text file"},
      {"\xe4\xb8\xad\xe6\x96\x87", "a text file"},
      {std::string(100'000, '\0'), "the file begins with zeros: an unfinished download"},
      {"\x80\x04\x95\x0b", "a pickle, but not one that torch.save wrote"},
      {"\x80\x02}q\x00."s, "a pickle, but not one that torch.save wrote"},
      {"\xff\xfe\x00\x01"s,
       "not a PyTorch checkpoint (neither a zip archive nor a file of PyTorch before 1.6)"},
      {"\x01", "not a PyTorch checkpoint"},
  };
  for (const auto& [bytes, message] : cases) {
    std::string error = error_of_bytes(bytes);
    CHECK_MESSAGE(contains(error, message), error);
  }
}

TEST_CASE("a zip archive of another kind is named with its first record") {
  auto docx = make_zip({{"[Content_Types].xml", "<xml>"}, {"word/document.xml", "<xml>"}}).bytes();
  CHECK(contains(error_of_bytes(docx), "a zip archive, but no PyTorch checkpoint"));
  CHECK(contains(error_of_bytes(docx), "(but '[Content_Types].xml')"));
  CHECK(contains(error_of_bytes(make_zip({{"weight.npy", "x"}}).bytes()), "no PyTorch checkpoint"));
}

TEST_CASE("a sparse file of 2^40 bytes is refused at once") {
  TemporaryDirectory directory;
  std::string path = directory / "x.pth";
  for (std::string head :
       {"", "PK\x03\x04", "GGUF", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."}) {
    write_file(path, head);
    std::filesystem::resize_file(path, uint64_t{1} << 40);
    CHECK(error_of([&] { Checkpoint::open(path); }).starts_with(path + ": "));
  }
}

TEST_CASE("control characters of a foreign file do not reach the message") {
  CHECK(contains(error_of_bytes(tar_with("a\x1b[31m\n")), "'a\\x1b[31m\\x0a'"));
}

TEST_SUITE_END();

}  // namespace
}  // namespace rwkv::test
