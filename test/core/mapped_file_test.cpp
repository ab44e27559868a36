#include "core/mapped_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/buffer.h"
#include "test/core/unprivileged.h"
#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

int open_descriptors() {
  auto entries = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<int>(std::distance(begin(entries), end(entries)));
}

void make_socket(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  REQUIRE(path.size() < sizeof(address.sun_path));
  path.copy(address.sun_path, path.size());
  int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  close(descriptor);
}

}  // namespace

TEST_CASE("mapped file: shows the bytes of a file under any name") {
  TemporaryDirectory directory;
  for (std::string name : {"plain", "with space % and, comma.pth", "\xe4\xb8\xad\xe6\x96\x87"}) {
    write_file(directory / name, "some bytes");
    MappedFile file = MappedFile::open(directory / name);
    CHECK(text_of(file) == "some bytes");
    CHECK(file.path() == directory / name);
  }
}

namespace {

/// Whether huge pages were asked for ("hg" in VmFlags) where this address lies.
bool asks_for_huge_pages(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      here = begin <= reinterpret_cast<uintptr_t>(address) && reinterpret_cast<uintptr_t>(address) < end;
    if (here && line.starts_with("VmFlags:")) return line.find(" hg") != std::string::npos;
  }
  return false;
}

}  // namespace

TEST_CASE("mapped file: a large one asks for huge pages, if the kernel knows them") {
  TemporaryDirectory directory;
  write_file(directory / "large", std::string(huge_page, 'x'));
  write_file(directory / "small", std::string(huge_page - 1, 'x'));
  const MappedFile large = MappedFile::open(directory / "large"),
                   small = MappedFile::open(directory / "small");
  const bool known = std::filesystem::exists("/sys/kernel/mm/transparent_hugepage");
  CHECK(asks_for_huge_pages(large.bytes().data()) == known);
  CHECK_FALSE(asks_for_huge_pages(small.bytes().data()));
}

TEST_CASE("mapped file: an empty file is an empty span") {
  TemporaryDirectory directory;
  write_file(directory / "empty", "");
  CHECK(MappedFile::open(directory / "empty").bytes().empty());
  CHECK(MappedFile().bytes().empty());
}

TEST_CASE("mapped file: what is no regular file is refused by its kind, at once") {
  TemporaryDirectory directory;
  auto refusal = [](const std::string& path) { return error_of([&] { MappedFile::open(path); }); };
  std::string path = directory / "pipe";
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  CHECK(refusal(path) == path + ": is a pipe, not a file; give the path of a regular file");
  path = directory / "socket";
  make_socket(path);
  CHECK(refusal(path) == path + ": is a socket, not a file; give the path of a regular file");
  path = directory / "";
  CHECK(refusal(path) == path + ": is a directory, not a file; give the path of a regular file");
  CHECK(refusal("/dev/null") == "/dev/null: is a device, not a file; give the path of a regular file");
  path = directory / "missing";
  CHECK(refusal(path) == path + ": cannot open the file: No such file or directory");
  CHECK(refusal("") == ": cannot open the file: No such file or directory");
  path = directory / "unreadable";
  write_file(path, "x");
  REQUIRE(chmod(path.c_str(), 0) == 0);
  Unprivileged unprivileged;
  CHECK(refusal(path) == path + ": cannot open the file: Permission denied");
}

TEST_CASE("mapped file: a symbolic link shows the file it leads to") {
  TemporaryDirectory directory;
  write_file(directory / "target", "bytes");
  std::filesystem::create_symlink("target", directory / "link");
  CHECK(text_of(MappedFile::open(directory / "link")) == "bytes");
  std::filesystem::create_symlink("nowhere", directory / "dangling");
  CHECK(error_of([&] { MappedFile::open(directory / "dangling"); }).ends_with("No such file or directory"));
}

TEST_CASE("mapped file: copies share the mapping, which outlives the first of them and the file's name") {
  TemporaryDirectory directory;
  write_file(directory / "file", "bytes");
  MappedFile copy;
  {
    MappedFile file = MappedFile::open(directory / "file");
    copy = file;
    CHECK(copy.bytes().data() == file.bytes().data());
  }
  std::filesystem::remove(directory / "file");
  CHECK(text_of(copy) == "bytes");
}

TEST_CASE("mapped file: a memory file is mapped from its descriptor") {
  int descriptor = memfd_create("test", MFD_CLOEXEC);
  REQUIRE(descriptor >= 0);
  REQUIRE(write(descriptor, "bytes", 5) == 5);
  MappedFile file = MappedFile::from_descriptor(descriptor, "name");
  CHECK(text_of(file) == "bytes");
  CHECK(file.path() == "name");
}

TEST_CASE("mapped file: no descriptor stays open, whether opening succeeds or fails") {
  TemporaryDirectory directory;
  write_file(directory / "file", "bytes");
  int before = open_descriptors();
  MappedFile file = MappedFile::open(directory / "file");
  CHECK_THROWS_AS(MappedFile::open(directory / ""), Error);
  CHECK_THROWS_AS(MappedFile::open("/dev/null"), Error);
  CHECK(open_descriptors() == before);
}

TEST_CASE("mapped file: an address tells the path while it is mapped") {
  TemporaryDirectory directory;
  write_file(directory / "a", std::string(10'000, 'a'));
  write_file(directory / "b", "b");
  const std::byte* address = nullptr;
  {
    MappedFile a = MappedFile::open(directory / "a"), b = MappedFile::open(directory / "b");
    address = a.bytes().data();
    CHECK(MappedFile::path_at(address) == directory / "a");
    CHECK(MappedFile::path_at(address + 9'999) == directory / "a");
    CHECK(MappedFile::path_at(b.bytes().data()) == directory / "b");
    CHECK(MappedFile::path_at(&directory) == nullptr);
    CHECK(MappedFile::path_at(nullptr) == nullptr);
    MappedFile copy = a;
    a = MappedFile();
    CHECK(MappedFile::path_at(address) == directory / "a");
  }
  CHECK(MappedFile::path_at(address) == nullptr);
}

TEST_CASE("mapped file: a handler of SIGBUS learns which file was truncated while it was mapped") {
  TemporaryDirectory directory;
  write_file(directory / "file", std::string(100'000, 'x'));
  static std::string expected;
  expected = directory / "file";
  MappedFile file = MappedFile::open(expected);
  REQUIRE(truncate(expected.c_str(), 10) == 0);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      const char* path = MappedFile::path_at(info->si_addr);
      _exit(path != nullptr && path == expected ? 7 : 8);
    };
    sigaction(SIGBUS, &action, nullptr);
    _exit(static_cast<int>(*static_cast<const volatile std::byte*>(&file.bytes()[99'999])) == 0 ? 9 : 10);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE("mapped file: more mappings than the registry holds are mapped all the same") {
  TemporaryDirectory directory;
  std::vector<MappedFile> files;
  for (int i = 0; i < 200; i++) {
    std::string path = directory / std::to_string(i);
    write_file(path, path);
    files.push_back(MappedFile::open(path));
  }
  CHECK(std::ranges::all_of(files, [](const MappedFile& file) { return text_of(file) == file.path(); }));
  auto known = std::ranges::count_if(files, [](const MappedFile& file) {
    const char* path = MappedFile::path_at(file.bytes().data());
    return path != nullptr && path == file.path();
  });
  // Other tests may keep files mapped for as long as the program runs.
  CHECK(known <= 64);
  CHECK(known >= 32);
  files.clear();
  MappedFile again = MappedFile::open(directory / "199");
  CHECK(MappedFile::path_at(again.bytes().data()) == directory / "199");
}

}  // namespace rwkv::test

TEST_SUITE_END();
