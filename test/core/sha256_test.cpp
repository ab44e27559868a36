#include "core/sha256.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

using Path = Sha256::Path;
constexpr Path paths[] = {Path::fastest, Path::portable};

std::string digest(std::span<const std::byte> bytes, Path path) {
  Sha256 sha(path);
  sha.update(bytes);
  return sha.finish();
}

std::string digest(std::string_view text, Path path) { return digest(std::as_bytes(std::span(text)), path); }

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937 random(11);
  std::vector<std::byte> bytes(size);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

}  // namespace

TEST_CASE("sha256: published vectors") {
  for (Path path : paths) {
    CHECK(digest("", path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(digest("abc", path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", path) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(
        digest(
            "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs"
            "mnopqrstnopqrstu",
            path) == "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    CHECK(digest(std::string(1'000'000, 'a'), path) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST_CASE("sha256: both paths agree at every length to 300 and every alignment") {
  std::vector<std::byte> data = random_bytes(320);
  for (size_t start : {0, 1, 7, 16}) {
    for (size_t length = 0; length <= 300; length++) {
      auto bytes = std::span<const std::byte>(data).subspan(start, length);
      REQUIRE(digest(bytes, Path::fastest) == digest(bytes, Path::portable));
    }
  }
}

TEST_CASE("sha256: the digest does not depend on how the bytes are cut") {
  std::vector<std::byte> data = random_bytes(10'000);
  std::span<const std::byte> bytes(data);
  std::string whole = digest(bytes, Path::portable);
  for (Path path : paths) {
    for (size_t piece : {1, 3, 55, 56, 63, 64, 65, 127, 128, 1000}) {
      Sha256 sha(path);
      for (size_t i = 0; i < bytes.size(); i += piece) {
        sha.update(bytes.subspan(i, std::min(piece, bytes.size() - i)));
        sha.update({});
      }
      CHECK(sha.finish() == whole);
    }
    std::mt19937 random(5);
    Sha256 sha(path);
    for (std::span<const std::byte> rest = bytes; !rest.empty();) {
      size_t piece = std::min<size_t>(random() % 200, rest.size());
      sha.update(rest.first(piece));
      rest = rest.subspan(piece);
    }
    CHECK(sha.finish() == whole);
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
